//! CommIPC's deterministic simulator: worlds, links, faults and oracles from one seed.

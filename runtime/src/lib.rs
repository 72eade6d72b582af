//! The async driver of CommIPC's machines and the handles users hold, for any executor.

//! The table of threats, cell by cell, with the tests that show each.
//!
//! G guaranteed · G\* while the secret resists guessing · H needs an honest hub · D detected · B bounded · N not ·
//! T needs TLS · – nothing to promise. A1 someone on the socket's path, A2 who knows no secret, A3 who is let in and
//! no member, A4 a member, A5 a former one after the password changed, A6 the hub, A7 a bridge, A8 the network on TCP
//! without TLS.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What is promised in one cell, and the tests that show it: that an adversary fails, or that one succeeds.
struct Cell {
    promise: &'static str,
    fails: &'static [&'static str],
    succeeds: &'static [&'static str],
}

/// A cell in which every adversary fails, or does only what is said.
const fn fails(promise: &'static str, fails: &'static [&'static str]) -> Cell {
    Cell { promise, fails, succeeds: &[] }
}

/// A cell in which one succeeds.
const fn succeeds(promise: &'static str, succeeds: &'static [&'static str]) -> Cell {
    Cell { promise, fails: &[], succeeds }
}

const fn both(promise: &'static str, fails: &'static [&'static str], succeeds: &'static [&'static str]) -> Cell {
    Cell { promise, fails, succeeds }
}

/// There is nothing to promise.
const NONE: Cell = fails("–", &[]);

const OWN_CREDENTIALS: &str = "G with own credentials, N with one shared";

const WIRE: &[&str] = &[
    "a1_a8_nobody_on_the_path_of_a_connection_is_believed",
    "where_frames_are_not_tagged_somebody_on_the_path_is_believed",
];
/// Its directory and its key are this user's alone, and whoever the system says to be another is nobody.
///
/// What A1 does not read and whose memory it does not take is shown on real sockets only: what keeps it out is the modes of files
/// and the word of the kernel on who is at the other end, and a simulation has neither. There is nothing of the protocol to attack
/// before that, and where it is passed A1 is A2 or A8, which are simulated (`STRANGER`, `STRANGERS_BOUNDED`, `WIRE`).
const SOCKET: &[&str] = &[
    "s83_another_user_at_the_other_end_of_a_socket_is_nobody",
    "s83_socket_key_and_directory_are_private",
    "s14_a_directory_that_others_can_write_to_is_refused",
];
/// The same; and where the system does not say who is there, what holds on TCP.
const PATH: &[&str] = &[
    "s83_another_user_at_the_other_end_of_a_socket_is_nobody",
    "s83_socket_key_and_directory_are_private",
    "s14_a_directory_that_others_can_write_to_is_refused",
    "a1_a8_nobody_on_the_path_of_a_connection_is_believed",
    "a1_a8_what_is_taken_out_of_a_connection_ends_it",
    "where_frames_are_not_tagged_somebody_on_the_path_is_believed",
];
const STRANGER: &[&str] = &[
    "a2_whoever_knows_no_secret_changes_nothing_and_hears_nothing",
    "a2_anothers_login_opens_nothing_when_it_is_repeated",
];
const OUTSIDE: &[&str] = &["a3_a_stranger_to_a_channel_says_nothing_there_and_hears_nothing"];
const NEITHER_OWNER_NOR_ADMIN: &[&str] = &[
    "a3_a_stranger_to_a_channel_says_nothing_there_and_hears_nothing",
    "a3_an_admin_ends_a_channel_and_neither_speaks_there_nor_hears_nor_owns",
    "nobody_else_clears_anything",
];
const MEMBER: &[&str] = &["a4_a_member_speaks_for_nobody_else_past_an_honest_hub_and_owns_nothing"];
const NOT_THE_OWNER: &[&str] = &[
    "a4_a_member_speaks_for_nobody_else_past_an_honest_hub_and_owns_nothing",
    "a4_nobody_comes_back_to_a_channel_but_its_owner",
];
const FORMER: &[&str] = &[
    "a5_after_a_rotation_a_former_member_neither_speaks_nor_hears_nor_owns",
    "a5_a_member_that_was_told_takes_nothing_of_a_former_one_from_any_hub",
];
/// The same, and nothing that is under way between members is theirs to answer, give or end.
const UNDER_WAY: &[&str] = &[
    "a3_a_stranger_to_a_channel_says_nothing_there_and_hears_nothing",
    "a3_a_stranger_answers_no_call_of_others_and_gives_and_ends_no_stream",
];
const FORMER_UNDER_WAY: &[&str] = &[
    "a5_after_a_rotation_a_former_member_neither_speaks_nor_hears_nor_owns",
    "a5_a_member_that_was_told_takes_nothing_of_a_former_one_from_any_hub",
    "a5_a_former_member_answers_no_call_and_gives_and_ends_no_stream",
];
const NOT_PROMOTED: &[&str] =
    &["a5_after_a_rotation_a_former_member_neither_speaks_nor_hears_nor_owns", "v13_who_was_evicted_is_not_promoted"];
const HUB: &[&str] = &[
    "a6_no_member_takes_a_message_of_which_any_field_was_changed",
    "a6_no_member_takes_what_its_hub_made_up_repeated_returned_swapped_or_stripped",
    "a6_in_storms_with_every_trick_nobody_is_fooled",
];
/// And it takes no owner back to a password that others know.
const HUB_AND_OWNER: &[&str] = &[
    "a6_no_member_takes_a_message_of_which_any_field_was_changed",
    "a6_no_member_takes_what_its_hub_made_up_repeated_returned_swapped_or_stripped",
    "a6_v13_an_owner_takes_no_older_word_of_its_hub_for_the_latest",
    "a6_in_storms_with_every_trick_nobody_is_fooled",
];
const STREAMS: &[&str] = &[
    "a6_a_stream_that_its_hub_cuts_or_mixes_up_is_an_error_and_never_a_success",
    "a6_v27_a_stream_whose_end_its_hub_keeps_back_ends_at_its_total_deadline",
    "a6_a_stream_of_which_a_hub_grants_more_than_was_granted_is_whole_or_an_error",
    "a6_no_member_takes_a_message_of_which_any_field_was_changed",
    "a6_no_member_takes_what_its_hub_made_up_repeated_returned_swapped_or_stripped",
    "a6_in_storms_with_every_trick_nobody_is_fooled",
];
const OWN_ID: &[&str] = &["a3_with_a_credential_of_ones_own_nobody_poses_as_another"];
const SHARED_HUB: &[&str] = &["a3_whoever_shares_the_secret_can_be_the_hub"];
const SHARED_ID: &[&str] = &["a3_with_one_shared_secret_a_free_id_is_anybodys"];
const OPEN_HUB: &[&str] = &["a6_on_an_open_channel_a_hub_is_believed_whatever_it_says"];
const HIDDEN: &[&str] = &["a1_a8_what_is_taken_out_of_a_connection_ends_it"];
const TOGETHER: &[&str] = &["a4_a6_a_member_and_a_bad_hub_together_speak_for_another"];
const BOUNDED: &[&str] = &[
    "v25_one_who_stops_reading_costs_its_outbox_and_nobody_else_notices",
    "a_full_hub_refuses_what_would_fill_it_more_and_forgets_nothing",
    "a_client_owes_its_hub_only_so_much",
];
const BOUNDED_SHARE: &[&str] = &[
    "v25_one_who_stops_reading_costs_its_outbox_and_nobody_else_notices",
    "v25_a_member_that_is_stopped_costs_its_outbox_and_others_go_on",
];
const STRANGERS_BOUNDED: &[&str] = &[
    "v21_v22_v23_ten_thousand_strangers_on_a_unix_socket_leave_no_trace",
    "v20_guesses_wait_and_honest_clients_do_not",
    "v24_a_stranger_makes_the_hub_keep_less_than_a_frame",
    "a2_whoever_knows_no_secret_changes_nothing_and_hears_nothing",
];

const BRIDGE_CHANGES: &[&str] = &["v1_v32_a_bridge_can_change_no_bit_of_what_is_signed"];
const BRIDGE_SPEAKS: &[&str] = &["a7_on_an_open_channel_a_bridge_speaks_for_anybody_elsewhere"];
const BRIDGE_LIES: &[&str] = &[
    "d17_v33_a7_a_bridge_announces_nothing_of_the_hub_it_talks_to_nor_what_cannot_be",
    "a7_a_stripped_or_made_up_path_gets_a_message_nowhere",
];
const BRIDGE_BOUNDED: &[&str] = &[
    "d15_v31_a7_who_floods_the_doubles_of_a_hub_keeps_nobody_elses_messages_out",
    "v25_a_bridge_for_which_a_broadcast_waits_too_long_is_ended_and_nobody_waits_for_it",
    "a_bridge_announces_only_so_much_and_the_hub_says_so_once",
    "calls_that_come_over_one_bridge_are_so_many",
    "s82_a7_no_word_that_a_bridge_makes_up_in_a_homes_place_ends_the_link_of_who_joins",
    "s82_a7_no_word_that_a_bridge_makes_up_in_a_homes_place_ends_the_link_of_an_owner",
    "a7_a_flood_of_announcements_keeps_out_nobody_of_hubs_nearer_than_the_bridge_that_makes_them_up",
    "a7_a_way_that_a_bridge_makes_up_draws_away_from_longer_ones_alone_and_as_long_as_it_lasts",
];

const NO_BRIDGES: &[&str] = &[
    "d17_v33_who_is_no_bridge_ends_with_the_first_word_that_only_bridges_say",
    "s74_d17_v33_a_bridge_that_may_be_none_at_either_hub_joins_nothing_and_says_where",
];

/// One property, from A1 to A8.
type Row = (&'static str, [Cell; 8]);

const CONNECTIONS: &[Row] = &[
    (
        "cannot change hub state unauthenticated",
        [
            fails("G", PATH),
            fails("G*", STRANGER),
            NONE,
            NONE,
            NONE,
            succeeds("N", &["a6_a_hub_says_who_owns_a_channel_and_who_may_stay"]),
            fails("G (own credential)", NO_BRIDGES),
            fails("G*", WIRE),
        ],
    ),
    (
        "cannot pose as the hub",
        [
            fails("G", PATH),
            fails("G*", &["a2_whoever_knows_no_secret_is_nobodys_hub"]),
            both(OWN_CREDENTIALS, OWN_ID, SHARED_HUB),
            both(OWN_CREDENTIALS, OWN_ID, SHARED_HUB),
            both(OWN_CREDENTIALS, OWN_ID, SHARED_HUB),
            succeeds("N", OPEN_HUB),
            fails("G", BRIDGE_LIES),
            fails("G*", WIRE),
        ],
    ),
    (
        "cannot pose as another client",
        [
            fails("G", PATH),
            fails("G*", STRANGER),
            both(OWN_CREDENTIALS, OWN_ID, SHARED_ID),
            both(OWN_CREDENTIALS, OWN_ID, SHARED_ID),
            both(OWN_CREDENTIALS, OWN_ID, SHARED_ID),
            succeeds("N", OPEN_HUB),
            both("G for clients of the hub itself, N for those elsewhere", BRIDGE_LIES, BRIDGE_SPEAKS),
            fails("G*", WIRE),
        ],
    ),
];

const SIGNATURES: &[Row] = &[
    (
        "cannot forge or alter a signed message",
        [
            fails("G*", PATH),
            fails("G*", STRANGER),
            fails("G*", OUTSIDE),
            succeeds("N (may sign)", &["a4_a_member_may_sign_and_reads_what_is_said"]),
            both(
                "G; N with A6 towards a member not told",
                FORMER,
                &["a5_a6_a_member_that_its_hub_does_not_tell_believes_the_old_key"],
            ),
            fails("G*", HUB_AND_OWNER),
            fails("G*", BRIDGE_CHANGES),
            fails("G*", WIRE),
        ],
    ),
    (
        "cannot pose as another member",
        [
            fails("G*", PATH),
            fails("G*", STRANGER),
            fails("G*", OUTSIDE),
            fails("H", MEMBER),
            fails("G", FORMER),
            both("G*, N with a member", HUB, TOGETHER),
            both("G*, N with a member", BRIDGE_CHANGES, TOGETHER),
            fails("G*", WIRE),
        ],
    ),
    (
        "no replay to the same receiver process",
        [
            fails("G", PATH),
            fails("G", STRANGER),
            fails("G", OUTSIDE),
            fails("H", MEMBER),
            fails("G", FORMER),
            fails("G", HUB),
            fails(
                "G",
                &[
                    "v2_what_a_bridge_repeats_is_heard_once_and_where_nothing_is_signed_once_a_minute",
                    "s78_v2_a_call_that_a_bridge_doubles_runs_once_at_a_time_and_where_it_is_signed_once",
                ],
            ),
            fails("G", WIRE),
        ],
    ),
    (
        "an answer belongs to my call",
        [
            fails("G*", PATH),
            fails("G*", STRANGER),
            fails("G*", UNDER_WAY),
            fails("H", &["a4_nobody_answers_a_call_but_who_was_called"]),
            fails("G", FORMER_UNDER_WAY),
            fails("G*", HUB),
            fails("G*", &["v4_v7_a7_nothing_that_a_bridge_answers_itself_is_an_answer_where_calls_are_signed"]),
            fails("G*", WIRE),
        ],
    ),
    (
        "stream order and completeness",
        [
            fails("G*", PATH),
            fails("G*", STRANGER),
            fails("G*", UNDER_WAY),
            fails("H", &["a4_nobody_gives_or_ends_a_stream_but_its_two_ends"]),
            fails("G", FORMER_UNDER_WAY),
            fails("G* (cut = error)", STREAMS),
            fails(
                "G* (cut = error)",
                &[
                    "a6_a_stream_that_its_hub_cuts_or_mixes_up_is_an_error_and_never_a_success",
                    "s52_a_stream_ends_at_both_ends_when_either_gives_up_or_a_hop_is_lost",
                ],
            ),
            fails("G*", WIRE),
        ],
    ),
    (
        "suppression of broadcasts on a protected channel",
        [
            fails("G", PATH),
            fails("G", STRANGER),
            fails("G", OUTSIDE),
            fails("G", MEMBER),
            fails("G", FORMER),
            both(
                "D in 10 s while beacons pass, else N",
                &[
                    "a6_what_a_hub_hides_shows_within_ten_seconds_where_beacons_pass",
                    "a6_a_hidden_broadcast_shows_within_ten_seconds_whenever_it_was_said",
                ],
                &[
                    "a6_what_a_hub_hides_with_all_beacons_stays_hidden",
                    "a6_what_a_hub_hides_of_a_sender_that_was_never_heard_stays_hidden",
                ],
            ),
            both(
                "D in 10 s while beacons pass, else N",
                &["a7_what_a_bridge_hides_shows_where_beacons_pass"],
                &["a7_what_a_bridge_hides_with_all_beacons_stays_hidden"],
            ),
            both(
                "D with the next frame, else N",
                HIDDEN,
                &["a8_a_network_that_lets_nothing_through_hides_what_it_likes"],
            ),
        ],
    ),
];

const TRUST: &[Row] = &[
    (
        "integrity on an unprotected channel",
        [
            fails("G", PATH),
            fails("G", STRANGER),
            fails("H", OUTSIDE),
            succeeds("N", &["a4_on_an_open_channel_whoever_provides_answers_as_it_likes"]),
            fails("H", FORMER),
            succeeds("N", OPEN_HUB),
            both("G for what is said at the hub, N for what comes from elsewhere", BRIDGE_LIES, BRIDGE_SPEAKS),
            fails("G*", WIRE),
        ],
    ),
    (
        "ownership, eviction, promotion",
        [
            fails("G", PATH),
            fails("G", STRANGER),
            both(
                "G; N after a restart without state",
                NEITHER_OWNER_NOR_ADMIN,
                &[
                    "a3_after_a_restart_without_state_a_channel_is_the_first_openers",
                    "a3_after_a_restart_without_state_an_owner_that_comes_first_owns_and_protects_anew",
                ],
            ),
            fails("G", NOT_THE_OWNER),
            fails("G", NOT_PROMOTED),
            succeeds("N", &["a6_a_hub_says_who_owns_a_channel_and_who_may_stay"]),
            both(
                "G at home, N for who may stay elsewhere",
                &[
                    "v13_s82_only_the_owner_changes_a_channel_from_whichever_hub_somebody_asks",
                    "v13_a7_a_bridge_can_change_no_byte_of_what_an_owner_says",
                    "v2_v13_a7_an_operation_that_a_bridge_repeats_later_is_nothing",
                    "a7_a_bridge_learns_nothing_by_which_it_could_join_and_says_no_yes_for_the_home",
                ],
                &["s82_a7_a_made_up_protection_opens_nothing_and_closes_nothing_but_new_names"],
            ),
            both(
                "G*, N against holders of the same shared secret",
                WIRE,
                &[
                    "a8_whoever_shares_the_secret_unmasks_what_owners_are_known_by",
                    "a8_whoever_has_an_owners_verifier_and_one_of_its_proofs_owns_the_channel",
                ],
            ),
        ],
    ),
    (
        "secrecy of payloads",
        [
            fails("G", SOCKET),
            fails("G", STRANGER),
            fails("H", OUTSIDE),
            succeeds("N", &["a4_a_member_may_sign_and_reads_what_is_said"]),
            fails("H", FORMER),
            succeeds("N", &["a6_a_hub_reads_what_members_say"]),
            succeeds("N", &["a7_a_bridge_reads_what_passes"]),
            succeeds("T", &["a8_without_tls_the_network_reads_along"]),
        ],
    ),
    (
        "memory and time of others",
        [
            fails("G", SOCKET),
            fails("B", STRANGERS_BOUNDED),
            fails("B", BOUNDED),
            fails("B", BOUNDED_SHARE),
            fails("B", BOUNDED),
            succeeds(
                "N",
                &[
                    "a6_a_hub_can_keep_everybody_waiting_until_their_deadlines",
                    "a6_without_a_total_deadline_a_hub_can_keep_a_stream_from_ever_ending",
                ],
            ),
            fails("B", BRIDGE_BOUNDED),
            fails("B", STRANGERS_BOUNDED),
        ],
    ),
];

fn table() -> impl Iterator<Item = &'static Row> {
    [CONNECTIONS, SIGNATURES, TRUST].into_iter().flatten()
}

/// What is wrong with a cell.
fn fault(cell: &Cell, exists: impl Fn(&str) -> bool) -> Option<String> {
    let Cell { promise, fails, succeeds } = cell;
    if *promise == NONE.promise {
        let silent = fails.is_empty() && succeeds.is_empty();
        return (!silent).then(|| format!("{promise}: what is not promised is not tested"));
    }
    let letters =
        |any: &[char]| promise.split([',', ';', ' ', '*']).any(|word| any.iter().any(|it| word == it.to_string()));
    if letters(&['G', 'H', 'D', 'B']) == fails.is_empty() {
        return Some(format!("{promise}: an adversary must fail, and {fails:?} show it"));
    }
    if letters(&['N', 'T']) == succeeds.is_empty() {
        return Some(format!("{promise}: an adversary must succeed, and {succeeds:?} show it"));
    }
    let missing = fails.iter().chain(*succeeds).find(|test| !exists(test));
    missing.map(|test| format!("{promise}: there is no test {test}"))
}

/// The tests of all members, as text.
fn tests() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut folders: Vec<PathBuf> =
        ["sim/tests", "protocol/tests", "tests/tests", "cli/tests"].map(|folder| root.join(folder)).into();
    let mut text = String::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(&path).unwrap());
            }
        }
    }
    text
}

#[test]
fn every_cell_of_the_table_of_threats_is_shown_by_a_test() {
    let tests = tests();
    let exists = |test: &str| tests.contains(&format!("fn {test}("));
    let mut faults = Vec::new();
    for (property, cells) in table() {
        for (cell, actor) in cells.iter().zip(1..) {
            faults.extend(fault(cell, exists).map(|fault| format!("{property}, A{actor}: {fault}")));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    assert_eq!(table().count(), 13, "every property has its row");
}

/// Every adversary here is in the table: one that is not shows nothing.
#[test]
fn every_adversary_is_in_the_table() {
    let tests = tests();
    let cells = table().flat_map(|(_, cells)| cells);
    let named: Vec<&str> = cells.flat_map(|cell| cell.fails.iter().chain(cell.succeeds)).copied().collect();
    let adversaries = tests.split("fn a").skip(1).filter(|rest| rest.as_bytes()[0].is_ascii_digit());
    let names = adversaries.filter_map(|rest| rest.split_once('(')).map(|(name, _)| format!("a{name}"));
    let forgotten: Vec<String> = names.filter(|name| !named.contains(&name.as_str())).collect();
    let known = ["a2_a_wrong_secret_is_refused_alike_whoever_is_asked_for", JOINS];
    assert!(forgotten.iter().all(|name| known.contains(&name.as_str())), "{forgotten:?}");
}

const JOINS: &str = "a6_no_member_joins_a_channel_that_its_hub_cannot_prove_to_be_the_protected_one";

/// What the README calls each property, in the order of the table.
const IN_PLAIN_WORDS: [&str; 13] = [
    "cannot change what the hub holds",
    "cannot pose as the hub",
    "cannot pose as another client",
    "cannot forge or alter a signed message",
    "cannot pose as another member",
    "cannot repeat a message to who has heard it",
    "cannot answer my call in another's place",
    "cannot cut or reorder a stream",
    "cannot keep back broadcasts of a protected channel",
    "cannot alter what is said on an open channel",
    "cannot own, evict or promote",
    "cannot read",
    "cannot take others' memory and time",
];

/// Of each column of the README's table, which actor it is about.
const COLUMNS: [(&str, usize); 8] = [
    ("on the socket's path", 1),
    ("a stranger", 2),
    ("on the network, without TLS", 8),
    ("a client, no member", 3),
    ("a member", 4),
    ("a former member", 5),
    ("the hub", 6),
    ("a bridge", 7),
];

/// What a cell promises, whether in letters or in plain words.
fn promised(cell: &str) -> BTreeSet<&'static str> {
    let promise = |word| match word {
        "G" | "yes" => Some("yes"),
        "G*" | "guess" => Some("guess"),
        "H" | "honest" => Some("honest"),
        "D" | "noticed" => Some("noticed"),
        "B" | "bounded" => Some("bounded"),
        // Where it takes TLS, without it nothing is promised.
        "N" | "T" | "no" => Some("no"),
        _ => None,
    };
    cell.split([',', ';', ':', ' ']).filter_map(promise).collect()
}

/// Of a table in plain words, each property with its cells.
fn in_plain_words(page: &str) -> Vec<(&str, Vec<&str>)> {
    let line = |line: &'_ str| line.starts_with('|');
    let cells = |line| str::trim_matches(line, '|').split('|').map(str::trim).collect::<Vec<&str>>();
    let lines = page.lines().skip_while(|it| !line(it)).take_while(|it| line(it));
    lines.filter(|it| !it.starts_with("|---")).map(|it| (cells(it)[0], cells(it)[1..].to_vec())).collect()
}

/// What of a table in plain words is not what is shown.
fn departures(words: &[(&str, Vec<&str>)]) -> Vec<String> {
    let mut found = Vec::new();
    let named: Vec<&str> = words.iter().map(|(property, _)| *property).collect();
    if named.split_first() != Some((&"", &IN_PLAIN_WORDS[..])) {
        found.push(format!("the properties are {named:?}"));
    }
    if words.first().map(|(_, columns)| &columns[..]) != Some(&COLUMNS.map(|(name, _)| name)[..]) {
        found.push(format!("the columns are {:?}", words.first()));
    }
    for ((property, cells), (shown, of)) in words.iter().skip(1).zip(table()) {
        let mut last = "";
        for (cell, (actor, number)) in cells.iter().zip(COLUMNS) {
            last = if *cell == "same" { last } else { cell };
            let promise = of[number - 1].promise;
            if promised(last) != promised(promise) {
                found.push(format!("{property}, {actor}: {last}, but of \"{shown}\" is shown: {promise}"));
            }
        }
    }
    found
}

#[test]
fn the_readme_promises_what_is_shown_and_nothing_else() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let (_, page) = readme.split_once("### What holds against whom").unwrap();
    let words = in_plain_words(page);
    assert_eq!(departures(&words), [""; 0]);
    // Of every cell each other promise would be found.
    for (row, column) in (1..=13).flat_map(|row| (0..COLUMNS.len()).map(move |column| (row, column))) {
        for other in ["yes", "guess", "honest", "noticed; else no", "bounded", "no", "–"] {
            let mut changed = words.clone();
            if promised(other) != promised(table().nth(row - 1).unwrap().1[COLUMNS[column].1 - 1].promise) {
                changed[row].1[column] = other;
                assert!(!departures(&changed).is_empty(), "{row}, {column}: {other}");
            }
        }
    }
    assert!(!departures(&words[..13]).is_empty(), "a row is missing");
}

#[test]
fn the_rule_on_cells_bites() {
    let all = |_: &str| true;
    assert!(fault(&fails("G*", &["a"]), all).is_none() && fault(&both("G; N with A6", &["a"], &["b"]), all).is_none());
    assert!(fault(&fails("G", &[]), all).is_some(), "not shown");
    assert!(fault(&fails("G, N with A6", &["a"]), all).is_some(), "half of it not shown");
    assert!(fault(&succeeds("G", &["a"]), all).is_some(), "the contrary shown");
    assert!(fault(&fails("G", &["a"]), |_| false).is_some(), "by what is not there");
    assert!(fault(&fails("–", &["a"]), all).is_some());
}

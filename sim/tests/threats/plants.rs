//! Each adversary succeeds when what keeps it off is left out: otherwise that it fails would prove nothing. Bugs are planted
//! one after the other, for the whole process, so this is to run alone and in a build made for it (`.ci/long canaries`).

use std::panic::catch_unwind;

use commipc_protocol::canary::plant;
use commipc_sim::Canary;

use crate::{hubs, members, outsiders, strangers};

/// What is left out, and the adversary that it keeps off.
const GUARDS: [(Canary, fn()); 26] = [
    (Canary::RecordTag, outsiders::a1_a8_nobody_on_the_path_of_a_connection_is_believed),
    (Canary::RecordTag, outsiders::a1_a8_what_is_taken_out_of_a_connection_ends_it),
    (Canary::ClientProof, outsiders::a2_whoever_knows_no_secret_changes_nothing_and_hears_nothing),
    (Canary::ClientProof, outsiders::a2_anothers_login_opens_nothing_when_it_is_repeated),
    (Canary::ClientProof, strangers::a3_with_a_credential_of_ones_own_nobody_poses_as_another),
    (Canary::AnyId, strangers::a3_with_a_credential_of_ones_own_nobody_poses_as_another),
    (Canary::ServerProof, outsiders::a2_whoever_knows_no_secret_is_nobodys_hub),
    (Canary::OwnerProof, members::a4_nobody_comes_back_to_a_channel_but_its_owner),
    (Canary::ForeignSender, members::a4_a_member_speaks_for_nobody_else_past_an_honest_hub_and_owns_nothing),
    (Canary::ForeignReply, members::a4_nobody_answers_a_call_but_who_was_called),
    (Canary::ForeignPiece, members::a4_nobody_gives_or_ends_a_stream_but_its_two_ends),
    (Canary::Clears, strangers::a3_a_stranger_to_a_channel_says_nothing_there_and_hears_nothing),
    (Canary::NotMember, strangers::a3_a_stranger_to_a_channel_says_nothing_there_and_hears_nothing),
    (Canary::JoinProof, members::a5_after_a_rotation_a_former_member_neither_speaks_nor_hears_nor_owns),
    (Canary::NotMember, members::a5_after_a_rotation_a_former_member_neither_speaks_nor_hears_nor_owns),
    (Canary::OldEpoch, members::a5_a_member_that_was_told_takes_nothing_of_a_former_one_from_any_hub),
    (Canary::Signature, hubs::a6_no_member_takes_a_message_of_which_any_field_was_changed),
    (Canary::Signature, hubs::a6_no_member_takes_what_its_hub_made_up_repeated_returned_swapped_or_stripped),
    (Canary::Window, hubs::a6_no_member_takes_what_its_hub_made_up_repeated_returned_swapped_or_stripped),
    (Canary::Reference, hubs::a6_no_member_takes_what_its_hub_made_up_repeated_returned_swapped_or_stripped),
    (Canary::PieceIndex, hubs::a6_a_stream_that_its_hub_cuts_or_mixes_up_is_an_error_and_never_a_success),
    (Canary::PieceCount, hubs::a6_a_stream_that_its_hub_cuts_or_mixes_up_is_an_error_and_never_a_success),
    (Canary::Exceeds, hubs::a6_a_stream_of_which_a_hub_grants_more_than_was_granted_is_whole_or_an_error),
    (Canary::RolledBack, hubs::a6_no_member_joins_a_channel_that_its_hub_cannot_prove_to_be_the_protected_one),
    (Canary::OlderWord, hubs::a6_v13_an_owner_takes_no_older_word_of_its_hub_for_the_latest),
    (Canary::Gap, hubs::a6_what_a_hub_hides_shows_within_ten_seconds_where_beacons_pass),
];

#[test]
fn every_adversary_succeeds_when_its_guard_is_left_out() {
    let mut kept_off = Vec::new();
    for (guard, adversary) in GUARDS {
        assert!(plant(Some(guard)));
        if catch_unwind(adversary).is_ok() {
            kept_off.push(guard);
        }
    }
    assert!(plant(None));
    assert_eq!(kept_off, [], "without these the adversary fails all the same");
}

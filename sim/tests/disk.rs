//! A hub with a state directory, on a disk that fails and a computer that loses power.

#![allow(missing_docs, reason = "a test binary")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on ends here")]

use std::sync::Arc;

use commipc_runtime::state::StateError;
use commipc_runtime::{Channel, Client, Failure, Hub, HubError, OpenError, ProtectError, Refusal, Secret};
use commipc_sim::{Process, Sim, SimDisk};

fn key(number: u8) -> Secret {
    Secret::key([number; 32])
}

async fn hub(sim: &Sim, disk: &SimDisk) -> Hub {
    sim.process("h").hub().state_disk(Arc::new(disk.clone())).await.unwrap()
}

fn refusal<T>(result: Result<T, OpenError>) -> Refusal {
    match result {
        Err(OpenError::Failed(Failure::Refused(refusal))) => refusal,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("let in"),
    }
}

/// Whether this password opens the channel.
async fn opens(client: &Client, number: u8) -> bool {
    match client.open("vault").secret(key(number)).await {
        Ok(_) => true,
        Err(OpenError::Failed(Failure::Refused(Refusal::PasswordWrong | Refusal::NotProtected))) => false,
        Err(other) => panic!("{other}"),
    }
}

/// The password that the owner was told is in force, and the one it had asked for and was not told about.
#[derive(Debug, Default, PartialEq, Eq)]
struct Known {
    confirmed: Option<u8>,
    asked: Option<u8>,
}

/// Changes the password again and again until the hub says nothing any more.
async fn rotate(channel: &Channel, known: &mut Known) {
    for number in 1..8 {
        known.asked = Some(number);
        match channel.protect_with(key(number)).await {
            Ok(()) => *known = Known { confirmed: Some(number), asked: None },
            Err(ProtectError::Failed(Failure::Refused(Refusal::StorageFailed))) => known.asked = None,
            Err(_) => return,
        }
    }
    known.asked = None;
}

/// ```text
/// owner ──protect 1, 2, 3 …──► h ──► disk, which loses power in the midst of some operation
///                              h, started again with what has survived
/// member ──each password──► the last confirmed one, or the one after it, is the one in force
/// ```
#[test]
fn v28_nothing_confirmed_is_lost_whenever_the_power_goes() {
    let (mut cut, mut ahead) = (0, 0);
    for seed in 0..400 {
        let sim = Sim::seeded(seed);
        let disk = SimDisk::seeded(seed);
        let (known, in_force) = sim.run(async {
            let first = hub(&sim, &disk).await;
            let owner = sim.process("owner").client("h").await.unwrap();
            let channel = owner.open("vault").await.unwrap();
            let mut known = Known::default();
            disk.lose_power_after(seed % 24);
            rotate(&channel, &mut known).await;
            drop(first);
            sim.process("h").kill();
            sim.process("owner").kill();
            disk.restart();
            let _second = hub(&sim, &disk).await;
            let member = sim.process("member").client("h").await.unwrap();
            let mut in_force = None;
            for number in 1..8 {
                if opens(&member, number).await {
                    assert_eq!(in_force, None, "two passwords are in force");
                    in_force = Some(number);
                }
            }
            // Nobody takes the channel over, whatever became of its password.
            let thief = sim.process("thief").client("h").await.unwrap();
            match thief.open("vault").await {
                Ok(channel) => assert!(channel.protect_with(key(9)).await.is_err(), "the owner is another"),
                Err(error) => assert_eq!(refusal::<()>(Err(error)), Refusal::PasswordRequired),
            }
            (known, in_force)
        });
        cut += usize::from(known.confirmed < Some(7));
        if in_force != known.confirmed {
            // Refused or not answered: what was asked for last may have been stored all the same.
            assert!(in_force > known.confirmed, "seed {seed}: {known:?}, {in_force:?}");
            assert!(in_force <= known.confirmed.map_or(Some(1), |number| Some(number + 1)), "seed {seed}: {known:?}");
            ahead += 1;
        }
    }
    assert!(
        cut > 100 && ahead > 5,
        "power went in the midst of {cut} runs, and took a doubtful change along in {ahead}"
    );
}

#[test]
fn a_disk_that_fails_now_and_then_refuses_and_forgets_nothing() {
    let mut refused = 0;
    for seed in 0..200 {
        let sim = Sim::seeded(seed);
        let disk = SimDisk::seeded(seed);
        refused += sim.run(async {
            let first = hub(&sim, &disk).await;
            let owner = sim.process("owner").client("h").await.unwrap();
            let member = sim.process("member").client("h").await.unwrap();
            let channel = owner.open("vault").await.unwrap();
            channel.protect_with(key(100)).await.unwrap();
            disk.fail(40);
            let (mut confirmed, mut refused) = (100, 0);
            for number in 0..20 {
                match channel.protect_with(key(number)).await {
                    Ok(()) => confirmed = number,
                    Err(ProtectError::Failed(Failure::Refused(Refusal::StorageFailed))) => refused += 1,
                    Err(other) => panic!("{other}"),
                }
                assert!(opens(&member, confirmed).await, "what was refused has changed nothing");
            }
            disk.fail(0);
            // One that goes well makes up for those that did not.
            channel.protect_with(key(101)).await.unwrap();
            sim.process("h").kill();
            drop(first);
            disk.restart();
            let _second = hub(&sim, &disk).await;
            let late = sim.process("late").client("h").await.unwrap();
            assert!(opens(&late, 101).await, "seed {seed}");
            refused
        });
    }
    assert!(refused > 200, "{refused}");
}

#[test]
fn a_damaged_file_stops_the_hub_and_is_named() {
    let sim = Sim::seeded(1);
    let disk = SimDisk::seeded(1);
    sim.run(async {
        let first = hub(&sim, &disk).await;
        let owner = sim.process("owner").client("h").await.unwrap();
        owner.open("vault").await.unwrap().protect_with(key(1)).await.unwrap();
        sim.process("h").kill();
        drop(first);
        let files = disk.files();
        assert_eq!(files.len(), 2, "{:?}", files.keys());
        let start = async |p: Process| p.hub().state_disk(Arc::new(disk.clone())).await;
        for (name, whole) in &files {
            for torn in [&whole[..whole.len() - 1], &whole[..0], &[&whole[..40], &[0; 8], &whole[48..]].concat()] {
                disk.put(name, torn.to_vec());
                let error = start(sim.process("h")).await.unwrap_err();
                let HubError::State(StateError::Damaged { path, .. }) = &error else { panic!("{error}") };
                assert_eq!(path.to_str(), Some(&name[..]));
                assert!(error.to_string().contains("put a good copy in its place"), "{error}");
            }
            disk.put(name, whole.clone());
        }
        // What belongs to another channel, or to nobody.
        let (name, whole) = files.last_key_value().unwrap();
        assert_eq!(name, "hub");
        let channel = files.keys().next().unwrap();
        disk.put(channel, whole.clone());
        assert!(matches!(start(sim.process("h")).await, Err(HubError::State(StateError::Damaged { .. }))));
        disk.put(channel, files[channel].clone());
        disk.put("channel-0", files[channel].clone());
        assert!(matches!(start(sim.process("h")).await, Err(HubError::State(StateError::Misplaced { .. }))));
    });
}

#[test]
fn a_hub_keeps_its_id_and_is_no_other_one() {
    let sim = Sim::seeded(2);
    let disk = SimDisk::seeded(2);
    sim.run(async {
        let first = hub(&sim, &disk).await;
        let id = first.id().clone();
        first.shutdown().await;
        let again = hub(&sim, &disk).await;
        assert_eq!(*again.id(), id);
        again.shutdown().await;
        let other = sim.process("h").hub().id("other").state_disk(Arc::new(disk.clone())).await;
        let error = other.unwrap_err().to_string();
        assert!(error.contains("hub h, not of other"), "{error}");
        disk.put("hub.new", b"half".to_vec());
        let again = hub(&sim, &disk).await;
        assert!(!disk.files().contains_key("hub.new"), "left over by one that died");
        drop(again);
    });
}

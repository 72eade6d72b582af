//! What becomes of a channel when its owner goes.

use core::time::Duration;

use crate::wire::{Malformed, Policy};

/// The highest epoch of a channel's protection: numbers up to here survive in every language.
pub(crate) const EPOCH_MAX: u64 = 1 << 53;

/// What becomes of a channel when its owner goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OwnerPolicy {
    /// It ends: every member is told, and is no member any more.
    #[default]
    Terminate,
    /// The member that joined first is offered the ownership, then the next.
    Promote,
    /// Nobody else can own it until the owner is back, or has been away for too long.
    Hold {
        /// How long an owner whose link was lost is waited for.
        grace: Duration,
        /// What then.
        then: AfterGrace,
    },
}

/// What becomes of a channel whose owner was waited for in vain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterGrace {
    /// As [`OwnerPolicy::Terminate`].
    #[default]
    Terminate,
    /// As [`OwnerPolicy::Promote`].
    Promote,
}

impl From<OwnerPolicy> for Policy {
    fn from(policy: OwnerPolicy) -> Self {
        match policy {
            OwnerPolicy::Terminate => Self { kind: 0, grace: 0, then: 0 },
            OwnerPolicy::Promote => Self { kind: 1, grace: 0, then: 0 },
            OwnerPolicy::Hold { grace, then } => {
                let grace = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
                Self { kind: 2, grace, then: u64::from(then == AfterGrace::Promote) }
            }
        }
    }
}

impl TryFrom<Policy> for OwnerPolicy {
    type Error = Malformed;

    fn try_from(policy: Policy) -> Result<Self, Malformed> {
        Ok(match (policy.kind, policy.grace, policy.then) {
            (0, 0, 0) => Self::Terminate,
            (1, 0, 0) => Self::Promote,
            (2, grace, 0) => Self::Hold { grace: Duration::from_millis(grace), then: AfterGrace::Terminate },
            (2, grace, 1) => Self::Hold { grace: Duration::from_millis(grace), then: AfterGrace::Promote },
            _ => return Err(Malformed),
        })
    }
}

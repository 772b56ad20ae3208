//! Scripted failures: a list of rules that tests set through the library or the control port, and the matching of one
//! request against it. It never performs a failure: `fe.rs`, `be.rs` and `cluster.rs` do as the action says.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Where a fault can strike. Transaction operations strike where they are performed, redirects at the frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    Begin,
    Load,
    Prepare,
    Commit,
    Rollback,
    StreamLoad,
    GetLoadState,
    Cancel,
    /// A frontend is about to answer 307.
    FeRedirect,
    /// A committed transaction is about to become visible; only `hold` and the delays apply.
    Publish,
}

impl Op {
    pub const ALL: [Self; 10] = [
        Self::Begin,
        Self::Load,
        Self::Prepare,
        Self::Commit,
        Self::Rollback,
        Self::StreamLoad,
        Self::GetLoadState,
        Self::Cancel,
        Self::FeRedirect,
        Self::Publish,
    ];
}

/// What happens instead of, before or after the operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Action {
    /// Nothing is done; `status` and `message` are the answer in the operation's own JSON shape.
    Refuse {
        status: String,
        message: String,
    },
    /// Nothing is done; this HTTP status with a plain body is the answer.
    Http {
        code: u16,
        body: String,
    },
    /// Nothing is done and the connection is cut before `100 Continue` and before any answer.
    Cut,
    /// The connection is cut after this many bytes of the body were taken.
    CutBody {
        after_bytes: u64,
    },
    /// The operation is performed, then the connection is cut instead of answering.
    DoThenCut,
    /// The operation is performed, then `status` and `message` are answered instead of the truth.
    DoThenAnswer {
        status: String,
        message: String,
    },
    /// The operation waits until `release` is called.
    Hold,
    DelayBefore {
        ms: u64,
    },
    /// Performed at once, answered late.
    DelayAfter {
        ms: u64,
    },
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Fault {
    pub op: Op,
    /// Strikes only labels that contain this text; `None` strikes all.
    #[serde(default)]
    pub label: Option<String>,
    /// How often it may strike; `None` is without end.
    #[serde(default = "once")]
    pub count: Option<u32>,
    /// Chance of striking a matching request, 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// Start of the random sequence for `probability`.
    #[serde(default)]
    pub seed: u64,
    #[serde(flatten)]
    pub action: Action,
}

fn once() -> Option<u32> {
    Some(1)
}

fn always() -> f64 {
    1.0
}

impl Fault {
    /// Strikes the next request of that kind, once.
    pub fn once(op: Op, action: Action) -> Self {
        Self { op, label: None, count: Some(1), probability: 1.0, seed: 0, action }
    }

    /// Only for labels containing `text`.
    #[must_use]
    pub fn label(mut self, text: &str) -> Self {
        self.label = Some(text.to_owned());
        self
    }

    /// Strikes `count` times.
    #[must_use]
    pub fn times(mut self, count: u32) -> Self {
        self.count = Some(count);
        self
    }

    /// Strikes every time, until removed.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.count = None;
        self
    }

    /// Strikes by chance; the sequence is fixed by the seed.
    #[must_use]
    pub fn with_probability(mut self, probability: f64, seed: u64) -> Self {
        self.probability = probability;
        self.seed = seed;
        self
    }
}

/// The rules in force, first match wins.
pub struct Faults {
    rules: Mutex<Vec<Rule>>,
    /// Rises with each release; a held request waits for the next value.
    released: watch::Sender<u64>,
    held: watch::Sender<usize>,
}

struct Rule {
    fault: Fault,
    random: fastrand::Rng,
}

impl Default for Faults {
    fn default() -> Self {
        Self { rules: Mutex::default(), released: watch::Sender::new(0), held: watch::Sender::new(0) }
    }
}

impl Faults {
    /// Adds a rule behind those already there.
    pub fn push(&self, fault: Fault) {
        let random = fastrand::Rng::with_seed(fault.seed);
        self.lock().push(Rule { fault, random });
    }

    /// Removes every rule and releases what is held.
    pub fn clear(&self) {
        self.lock().clear();
        self.release();
    }

    /// Lets every held request go on.
    pub fn release(&self) {
        self.released.send_modify(|turn| *turn += 1);
    }

    /// The rules still in force.
    pub fn list(&self) -> Vec<Fault> {
        self.lock().iter().map(|rule| rule.fault.clone()).collect()
    }

    /// Waits until at least `count` requests are held.
    pub async fn wait_held(&self, count: usize) {
        let mut held = self.held.subscribe();
        // The sender lives as long as self, so this ends only by the condition.
        let _ = held.wait_for(|now| *now >= count).await;
    }

    /// How many requests are held.
    pub fn held(&self) -> usize {
        *self.held.borrow()
    }

    /// The action for this request, if a rule strikes; its count goes down.
    pub(crate) fn take(&self, op: Op, label: &str) -> Option<Action> {
        let mut rules = self.lock();
        let place = rules.iter_mut().position(|rule| {
            rule.fault.op == op
                && rule.fault.label.as_deref().is_none_or(|text| label.contains(text))
                && (rule.fault.probability >= 1.0 || rule.random.f64() < rule.fault.probability)
        })?;
        let fault = &mut rules[place].fault;
        let action = fault.action.clone();
        if let Some(count) = &mut fault.count {
            *count = count.saturating_sub(1);
            if *count == 0 {
                rules.remove(place);
            }
        }
        Some(action)
    }

    /// Waits as `hold` and `delay_before` say; returns the action that is still to be performed.
    pub(crate) async fn strike(&self, op: Op, label: &str) -> Option<Action> {
        match self.take(op, label)? {
            Action::Hold => {
                self.hold().await;
                None
            }
            Action::DelayBefore { ms } => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                None
            }
            action => Some(action),
        }
    }

    async fn hold(&self) {
        let mut released = self.released.subscribe();
        let turn = *released.borrow_and_update();
        self.held.send_modify(|held| *held += 1);
        let _ = released.wait_for(|now| *now > turn).await;
        self.held.send_modify(|held| *held -= 1);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_strikes_as_often_as_it_says_and_only_its_label() {
        let faults = Faults::default();
        faults.push(Fault::once(Op::Load, Action::Cut).label("a_").times(2));
        assert_eq!(faults.take(Op::Load, "b_1"), None);
        assert_eq!(faults.take(Op::Begin, "a_1"), None);
        assert_eq!(faults.take(Op::Load, "a_1"), Some(Action::Cut));
        assert_eq!(faults.take(Op::Load, "a_2"), Some(Action::Cut));
        assert_eq!(faults.take(Op::Load, "a_3"), None);
    }

    #[test]
    fn the_same_seed_strikes_the_same_requests() {
        let strikes = || {
            let faults = Faults::default();
            faults.push(Fault::once(Op::Load, Action::Cut).forever().with_probability(0.3, 7));
            (0..64).map(|_| faults.take(Op::Load, "x").is_some()).collect::<Vec<_>>()
        };
        let first = strikes();
        assert_eq!(first, strikes());
        assert!(first.contains(&true) && first.contains(&false));
    }

    #[test]
    fn a_rule_is_read_from_json() {
        let text = r#"{"op":"load","label":"x","do":"cut_body","after_bytes":10}"#;
        let fault: Fault = serde_json::from_str(text).unwrap();
        assert_eq!(fault, Fault::once(Op::Load, Action::CutBody { after_bytes: 10 }).label("x"));
    }
}

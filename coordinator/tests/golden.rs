//! State that earlier versions have stored is opened and gone on with. A new version adds a file and changes none:
//!
//! ```text
//! STARLIFT_GOLDEN_FROM=STATE_DIR cargo test -p starlift-coordinator --test golden -- --ignored
//! ```

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use starlift_common::job::JobState;
use starlift_coordinator::clock::{Millis, Now, UnixMillis};
use starlift_coordinator::state::{Action, Rules, State};
use starlift_coordinator::store::file::FileStore;
use starlift_coordinator::store::{self, Store, StoreError, Write};

/// The stored pairs of one version, by their keys.
struct Golden(Vec<(String, Vec<u8>)>);

impl Golden {
    fn parse(text: &str) -> Self {
        let Ok(Value::Object(pairs)) = serde_json::from_str(text) else { panic!("no JSON object") };
        Self(pairs.into_iter().map(|(key, value)| (key, value.to_string().into_bytes())).collect())
    }
}

impl Store for Golden {
    async fn load(&self) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        Ok(self.0.clone())
    }

    async fn save(&self, _: Vec<Write>) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A coordinator of 0.1.0 and its worker were killed: three tasks are done, three were given up and are to be swept.
#[tokio::test]
async fn the_state_of_version_0_1_0_is_gone_on_with() {
    let golden = Golden::parse(include_str!("golden/0.1.0.json"));
    let journal = store::load(&golden).await.expect("it is read");
    let now = Now { monotonic: Millis(0), unix: UnixMillis(1_800_000_000_000) };
    let (state, turn) = State::restore(Rules::new(Duration::from_secs(15), 3), journal, now);
    let (id, job) = state.jobs().next().expect("one job");
    assert_eq!((job.state(), job.record().name.as_str()), (JobState::Running, "job"));
    let counts = job.counts();
    assert_eq!((counts.total(), counts.done), (6, 3), "{counts:?}");
    assert_eq!(counts.waiting + counts.running + counts.committing, 3, "{counts:?}");
    let plan = job.plan().expect("it was planned");
    assert_eq!((plan.tasks.len(), plan.pre_sql.len(), plan.post_sql.len()), (6, 1, 1));
    assert_eq!(plan.load.table, "b");
    assert!(state.sweeps().labels_of(id) > 0, "labels of the attempts that died are swept");
    assert!(
        !turn.actions.iter().any(|action| matches!(action, Action::Plan { .. })),
        "it is not planned again"
    );
}

/// A state of a later version is left alone.
#[tokio::test]
async fn a_newer_state_is_refused_and_not_guessed_at() {
    let golden = Golden(vec![("format".into(), b"99".to_vec())]);
    let refused = store::load(&golden).await.map(|_| ()).expect_err("it is newer");
    assert!(matches!(refused, StoreError::Format { found: 99 }), "{refused}");
}

#[tokio::test]
#[ignore = "writes a golden file; see above"]
async fn write() {
    let Ok(from) = std::env::var("STARLIFT_GOLDEN_FROM") else { return };
    let store = FileStore::open(Path::new(&from)).expect("a state directory");
    let pairs = store.load().await.expect("it is read").into_iter();
    let all = pairs.map(|(key, value)| (key, serde_json::from_slice(&value).expect("JSON")));
    let text = serde_json::to_string_pretty(&Value::Object(all.collect())).expect("JSON");
    let path = format!("{}/tests/golden/{}.json", env!("CARGO_MANIFEST_DIR"), env!("CARGO_PKG_VERSION"));
    std::fs::write(path, text + "\n").expect("it is writable");
}

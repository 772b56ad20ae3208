//! Of several coordinators one leads: it alone holds the state and acts. The others know who leads and say so. This file
//! is the life of a coordinator between its terms: campaign, read the journal, lead, and when the term is over forget
//! everything and begin again. Who wins an election is decided elsewhere (`election.rs`).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use starlift_common::datasource::LiveDatasources;
use starlift_common::retry::Backoff;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::driver::{Clock, Driver, Handle, Saves};
use crate::perform::Performer;
use crate::state::{Rules, State};
use crate::store::{self, Store, StoreError};

/// Between attempts to lead, or to lead again after a failed save.
const BACKOFF: Backoff = Backoff { first: Duration::from_millis(200), most: Duration::from_secs(2) };

/// Where the coordinator is reached that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    /// URL of its gRPC side.
    pub(crate) grpc: Arc<str>,
    /// URL of its HTTP side; `None`: it serves none, or is of a version that does not say.
    pub(crate) http: Option<Arc<str>>,
}

#[cfg(test)]
impl Leader {
    /// One without an HTTP side.
    pub(crate) fn at(grpc: &str) -> Self {
        Self { grpc: grpc.into(), http: None }
    }
}

/// What this coordinator is at the moment.
#[derive(Clone, Default)]
pub(crate) enum Role {
    /// Nobody is known to lead.
    #[default]
    Waiting,
    /// Another one leads.
    Following(Leader),
    Leading(Handle),
}

/// The servers' view of the role. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk {
    role: watch::Receiver<Role>,
    saves: Arc<Saves>,
}

/// This coordinator cannot answer; nothing was decided. Holds the leader's URL where it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, thiserror::Error)]
#[error("{}", match .leader {
    Some(leader) => format!("another coordinator leads: {leader}"),
    None => "no coordinator leads at the moment".to_owned(),
})]
pub(crate) struct NotLeading {
    pub(crate) leader: Option<Arc<str>>,
}

impl Desk {
    pub(crate) fn new() -> (watch::Sender<Role>, Self) {
        let (sender, role) = watch::channel(Role::Waiting);
        (sender, Self { role, saves: Arc::default() })
    }

    /// The way to the loop, where there is one.
    pub(crate) fn handle(&self) -> Result<Handle, NotLeading> {
        match &*self.role.borrow() {
            Role::Leading(handle) => Ok(handle.clone()),
            Role::Following(leader) => Err(NotLeading { leader: Some(leader.grpc.clone()) }),
            Role::Waiting => Err(NotLeading { leader: None }),
        }
    }

    /// How this coordinator's terms have kept their journal.
    pub(crate) fn saves(&self) -> &Arc<Saves> {
        &self.saves
    }

    /// Who leads, where that is another one.
    pub(crate) fn leader(&self) -> Option<Leader> {
        match &*self.role.borrow() {
            Role::Following(leader) => Some(leader.clone()),
            Role::Leading(_) | Role::Waiting => None,
        }
    }

    /// Why the loop stopped in the middle of a request: whoever leads now is asked instead.
    pub(crate) fn not_leading(&self) -> NotLeading {
        self.handle().err().unwrap_or_default()
    }

    /// Whether there is anybody to answer, here or elsewhere.
    pub(crate) fn knows_a_leader(&self) -> bool {
        !matches!(*self.role.borrow(), Role::Waiting)
    }

    /// As [`Desk::knows_a_leader`], after the next change of role.
    pub(crate) async fn changed(&mut self) -> bool {
        match self.role.changed().await {
            Ok(()) => !matches!(*self.role.borrow_and_update(), Role::Waiting),
            // The coordinator is ending: nothing changes any more.
            Err(_) => std::future::pending().await,
        }
    }
}

/// How coordinators that share a journal agree on one leader.
pub(crate) trait Election: Send {
    type Store: Store;

    /// Waits until this coordinator leads; meanwhile tells `seen` who does. May be dropped at any moment.
    fn campaign(
        &mut self,
        seen: impl Fn(Role) + Send,
    ) -> impl Future<Output = Result<Term<Self::Store>, StoreError>> + Send;

    /// Lets others lead at once, as far as they can be told. Harmless without a term.
    fn resign(&mut self) -> impl Future<Output = ()> + Send;
}

/// The time during which nobody else writes the journal.
pub(crate) struct Term<S> {
    pub(crate) store: S,
    /// When it ends unless it is prolonged. `None`: not by time.
    pub(crate) ends: watch::Receiver<Option<Instant>>,
}

/// Waits for the end of a term by this process' own clock, which also runs while the process is stopped.
pub(crate) async fn lost(mut ends: watch::Receiver<Option<Instant>>) {
    loop {
        let Some(end) = *ends.borrow_and_update() else { return std::future::pending().await };
        let mut alarm = std::pin::pin!(sleep_until(end));
        // Looks at the clock itself: after a long sleep of the process the alarm may be late.
        let over =
            poll_fn(
                |context| {
                    if Instant::now() >= end { Poll::Ready(()) } else { alarm.as_mut().poll(context) }
                },
            );
        tokio::select! {
            biased;
            // Without a sender nobody prolongs it any more.
            Ok(()) = ends.changed() => {}
            () = over => return,
        }
    }
}

/// What a term needs besides its store.
pub(crate) struct Office {
    pub(crate) rules: Rules,
    pub(crate) datasources: LiveDatasources,
    pub(crate) clock: Clock,
    pub(crate) role: watch::Sender<Role>,
    pub(crate) saves: Arc<Saves>,
}

enum End {
    Stopped,
    Lost,
}

impl Office {
    /// Campaigns and leads until `stop`. Ends early only with an error that no retry mends.
    pub(crate) async fn serve<E: Election>(
        &self,
        mut election: E,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let (mut failures, mut has_led) = (0, false);
        let result = loop {
            let began = Instant::now();
            let ended = tokio::select! {
                biased;
                () = stop.cancelled() => Ok(End::Stopped),
                term = election.campaign(|role| self.show(role)) => match term {
                    Ok(term) => self.lead(term, &mut has_led, stop).await,
                    Err(error) => Err(error),
                },
            };
            self.show(Role::Waiting);
            match ended {
                Ok(End::Stopped) => break Ok(()),
                Ok(End::Lost) => warn!("leadership is lost; following from now on"),
                // What was never there is a mistake of whoever named it.
                Err(error) if error.is_final() || !has_led && matches!(error, StoreError::Open { .. }) => {
                    break Err(error);
                }
                Err(error) => {
                    // What went well for so long is no repeated failure.
                    failures = if began.elapsed() > BACKOFF.most { 0 } else { failures };
                    warn!(error = %error.problem(), failures, "the journal is not at hand; beginning again from what it holds");
                    let pause = BACKOFF.delay(failures, fastrand::f64());
                    failures = failures.saturating_add(1);
                    stop.run_until_cancelled(sleep(pause)).await;
                }
            }
        };
        election.resign().await;
        result
    }

    /// One term, from the journal's last word to its end. Nothing it has started runs on when it returns.
    async fn lead<S: Store>(
        &self,
        term: Term<S>,
        has_led: &mut bool,
        stop: &CancellationToken,
    ) -> Result<End, StoreError> {
        let Term { store, ends } = term;
        let took_over = async {
            let journal = store::load(&store).await?;
            let (state, turn) = State::restore(self.rules, journal, self.clock.now());
            store::save(&store, &turn.changes).await?;
            Ok((state, turn.actions))
        };
        let (state, actions) = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(End::Stopped),
            () = lost(ends.clone()) => return Ok(End::Lost),
            restored = took_over => restored?,
        };
        *has_led = true;
        let (driver, handle) = Driver::new(state, store, self.clock, Arc::clone(&self.saves));
        let mut performer = Performer::new(handle.clone(), self.datasources.clone());
        info!("leading");
        self.show(Role::Leading(handle));
        let ended = tokio::select! {
            biased;
            // The loop and all who wait for it are dropped where they are.
            () = lost(ends) => Ok(End::Lost),
            ended = driver.run(actions, &mut performer, stop) => ended.map(|()| End::Stopped),
        };
        self.show(Role::Waiting);
        performer.stop().await;
        ended
    }

    fn show(&self, role: Role) {
        self.role.send_if_modified(|present| {
            let is_same = match (&*present, &role) {
                (Role::Waiting, Role::Waiting) => true,
                (Role::Following(present), Role::Following(next)) => present == next,
                _ => false,
            };
            if !is_same {
                if let Role::Following(leader) = &role {
                    info!(leader = %leader.grpc, "following");
                }
                *present = role;
            }
            !is_same
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::driver::tests::{MemoryStore, submit};
    use crate::state::Answer;

    /// Wins as often as it may; after that somebody else leads. Its terms end when the test says so.
    struct Sure {
        store: MemoryStore,
        ends: watch::Receiver<Option<Instant>>,
        terms: u32,
    }

    impl Election for Sure {
        type Store = MemoryStore;

        async fn campaign(&mut self, seen: impl Fn(Role) + Send) -> Result<Term<MemoryStore>, StoreError> {
            let Some(left) = self.terms.checked_sub(1) else {
                seen(Role::Following(Leader::at("http://b:1")));
                return std::future::pending().await;
            };
            self.terms = left;
            Ok(Term { store: self.store.clone(), ends: self.ends.clone() })
        }

        async fn resign(&mut self) {}
    }

    struct Running {
        store: MemoryStore,
        ends: watch::Sender<Option<Instant>>,
        desk: Desk,
        stop: CancellationToken,
        serving: tokio::task::JoinHandle<Result<(), StoreError>>,
    }

    fn start(terms: u32) -> Running {
        let (role, desk) = Desk::new();
        let office = Office {
            rules: Rules::new(Duration::from_secs(15), 3),
            datasources: LiveDatasources::default(),
            clock: Clock::start(),
            role,
            saves: Arc::clone(desk.saves()),
        };
        let (ends, watched) = watch::channel(Some(Instant::now() + Duration::from_secs(3600)));
        let (store, stop) = (MemoryStore::default(), CancellationToken::new());
        let election = Sure { store: store.clone(), ends: watched, terms };
        let stopped = stop.clone();
        let serving = tokio::spawn(async move { office.serve(election, &stopped).await });
        Running { store, ends, desk, stop, serving }
    }

    /// The way to the loop, as soon as there is one.
    async fn leading(desk: &Desk) -> Handle {
        let mut desk = desk.clone();
        loop {
            match desk.handle() {
                Ok(handle) => return handle,
                Err(_) => desk.changed().await,
            };
        }
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failed_save_the_journal_is_read_again_and_all_goes_on() {
        let Running { store, ends: _ends, desk, stop, serving } = start(u32::MAX);
        let first = leading(&desk).await;
        store.is_broken.store(true, Ordering::Relaxed);
        assert!(first.ask(submit).await.is_err(), "what is not saved is not answered");
        store.is_broken.store(false, Ordering::Relaxed);
        let again = leading(&desk).await;
        assert_eq!(again.read(|state, _| state.jobs().count()).await, Ok(0), "it was not saved");
        assert_eq!(again.ask(submit).await, Ok(Answer::Accepted));
        stop.cancel();
        assert!(serving.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn lost_leadership_answers_nobody_and_names_the_new_leader() {
        let Running { ends, mut desk, stop, serving, .. } = start(1);
        let handle = leading(&desk).await;
        let parked = tokio::spawn({
            let (worker, until) = (crate::state::tests::info("w1"), handle.deadline(Duration::from_secs(60)));
            async move {
                let ask = |ticket| crate::state::Event::Acquire { ticket, worker, free_slots: 1, until };
                handle.ask(ask).await
            }
        });
        sleep(Duration::from_secs(1)).await;
        ends.send_replace(Some(Instant::now()));
        assert!(parked.await.unwrap().is_err(), "whoever waits is told at once");
        while desk.not_leading().leader.is_none() {
            desk.changed().await;
        }
        assert_eq!(desk.not_leading().leader.as_deref(), Some("http://b:1"));
        stop.cancel();
        assert!(serving.await.unwrap().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_ends_by_its_own_clock_unless_it_is_prolonged() {
        let start = Instant::now();
        let at = |seconds| Some(start + Duration::from_secs(seconds));
        let (sender, ends) = watch::channel(at(4));
        let over = tokio::spawn(lost(ends));
        sleep(Duration::from_secs(3)).await;
        sender.send_replace(at(7));
        sleep(Duration::from_secs(3)).await;
        assert!(!over.is_finished());
        over.await.unwrap();
        assert_eq!(start.elapsed(), Duration::from_secs(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_that_nobody_prolongs_any_more_ends_in_time() {
        let start = Instant::now();
        let (sender, ends) = watch::channel(Some(start + Duration::from_secs(4)));
        drop(sender);
        lost(ends).await;
        assert_eq!(start.elapsed(), Duration::from_secs(4));
    }

    #[test]
    fn a_desk_tells_who_leads() {
        let (role, desk) = Desk::new();
        assert_eq!(desk.not_leading().to_string(), "no coordinator leads at the moment");
        role.send_replace(Role::Following(Leader::at("http://b:1")));
        assert_eq!(desk.handle().err(), Some(NotLeading { leader: Some("http://b:1".into()) }));
        assert!(desk.not_leading().to_string().contains("http://b:1"));
    }
}

//! The lanes of a pass: the letters that wait for each destination, and how many work on them.
//!
//! An account has its lane, and so has each domain that letters are delivered to directly; letters for several
//! destinations share one. A worker stays in its lane while letters may still come. Domains can be thousands, so that
//! those who work on them are a crew of bounded size: where lanes lack one, a worker whose lane is empty moves on to
//! them. Letters, workers and the end are under one lock: no letter is left in a lane that its last worker has just
//! left. Knows nothing of mail.

use crate::config::choose::Destination;
use crate::queue::Id;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Letters that wait in a lane for each worker that it has, before it gets another.
const BACKLOG: usize = 16;

/// Who works on letters for domains, at most.
const CREW: usize = 20;

/// Where a lane leads; `None`: to several destinations.
pub(super) type Key<'a> = Option<Destination<'a>>;

/// All lanes.
#[derive(Default)]
pub(super) struct Lanes<'a>(Mutex<State<'a>>);

#[derive(Default)]
struct State<'a> {
    lanes: HashMap<Key<'a>, Lane>,
    /// Lanes of domains that have letters and no worker, in the order of their first letters.
    unstaffed: VecDeque<Key<'a>>,
    /// Workers in the lanes of domains.
    crew: usize,
    /// Nothing more will come from the queue.
    closed: bool,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Id>,
    workers: usize,
    /// Somebody should look again.
    news: Arc<Condvar>,
}

fn is_domain(key: &Key<'_>) -> bool {
    key.as_ref().is_some_and(|to| to.domain.is_some())
}

impl<'a> Lanes<'a> {
    /// Adds a letter. Whether the lane, which may have `most` workers, shall get another, who is counted already.
    pub fn push(&self, key: &Key<'a>, id: Id, most: usize) -> bool {
        let mut state = self.lock();
        let State { lanes, unstaffed, crew, .. } = &mut *state;
        let lane = lanes.entry(key.clone()).or_default();
        lane.waiting.push_back(id);
        lane.news.notify_one();
        if lane.workers > 0 && (lane.workers >= most || lane.waiting.len() <= BACKLOG * lane.workers) {
            return false;
        }
        if is_domain(key) {
            if *crew >= CREW {
                if lane.workers == 0 && lane.waiting.len() == 1 {
                    unstaffed.push_back(key.clone());
                    // Whoever only waits for more in a lane of his own can come.
                    for lane in lanes.values() {
                        lane.news.notify_all();
                    }
                }
                return false;
            }
            *crew += 1;
        }
        lane.workers += 1;
        true
    }

    /// The next letter of a lane, if one is there.
    pub fn next(&self, key: &Key<'a>) -> Option<Id> {
        self.lock().lanes.get_mut(key)?.waiting.pop_front()
    }

    /// The next letter of a lane, when it comes. `None`: the worker is not needed there any more, and has left.
    pub fn wait(&self, key: &Key<'a>) -> Option<Id> {
        let mut state = self.lock();
        loop {
            let State { lanes, unstaffed, closed, .. } = &mut *state;
            let lane = lanes.get_mut(key)?;
            if let Some(id) = lane.waiting.pop_front() {
                return Some(id);
            }
            if *closed || (is_domain(key) && !unstaffed.is_empty()) {
                lane.workers -= 1;
                return None;
            }
            let news = Arc::clone(&lane.news);
            state = news.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives letters back and leaves the lane to its other workers. `false`: there are none, and nothing is done.
    pub fn resign(&self, key: &Key<'a>, ids: &[Id]) -> bool {
        let mut state = self.lock();
        let Some(lane) = state.lanes.get_mut(key).filter(|lane| lane.workers > 1) else { return false };
        lane.waiting.extend(ids);
        lane.workers -= 1;
        lane.news.notify_all();
        true
    }

    /// Takes back that a lane gets a worker.
    pub fn abandon(&self, key: &Key<'a>) {
        let mut state = self.lock();
        state.crew -= usize::from(is_domain(key));
        if let Some(lane) = state.lanes.get_mut(key) {
            lane.workers -= 1;
        }
    }

    /// Where a worker who has left his lane is needed; `None`: nowhere, and he is not counted any more.
    pub fn another(&self, left: &Key<'a>) -> Option<Key<'a>> {
        if !is_domain(left) {
            return None;
        }
        let mut state = self.lock();
        while let Some(key) = state.unstaffed.pop_front() {
            if let Some(lane) = state.lanes.get_mut(&key).filter(|lane| lane.workers == 0 && !lane.waiting.is_empty()) {
                lane.workers += 1;
                return Some(key);
            }
        }
        state.crew -= 1;
        None
    }

    /// Nothing more will come; with `drop_waiting`, what waits is left for another run.
    pub fn close(&self, drop_waiting: bool) {
        let mut state = self.lock();
        state.closed = true;
        for lane in state.lanes.values_mut() {
            if drop_waiting {
                lane.waiting.clear();
            }
            lane.news.notify_all();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State<'a>> {
        // A thread that panicked has left counters that are still good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Account, Host};
    use std::thread;

    fn id(number: u64) -> Id {
        Id::parse(&format!("{number:012X}")).unwrap()
    }

    /// Lanes of that many domains, with one letter each; those for which a worker was asked.
    fn domains<'a>(lanes: &Lanes<'a>, account: &'a Account, count: usize) -> (Vec<Key<'a>>, Vec<Key<'a>>) {
        let key = |i| Some(Destination { account, domain: Some(format!("{i}.example")) });
        let all: Vec<Key<'a>> = (0..count).map(key).collect();
        let staffed = all.iter().filter(|key| lanes.push(key, id(1), 2)).cloned().collect();
        (all, staffed)
    }

    #[test]
    fn a_thousand_domains_have_a_crew_of_bounded_size_that_gets_to_all_of_them() {
        let account = Account { hosts: vec![Host::Mx(25)], ..Account::new("direct") };
        let lanes = Lanes::default();
        let (all, staffed) = domains(&lanes, &account, 1000);
        assert_eq!(staffed.len(), CREW);
        let mut letters = 0;
        for key in staffed {
            let mut at = Some(key);
            // Before the end of the pass: he who waits only for more goes where he is needed.
            while let Some(key) = at {
                letters += std::iter::from_fn(|| lanes.next(&key)).count();
                if lanes.lock().unstaffed.is_empty() {
                    lanes.close(false);
                }
                assert_eq!(lanes.wait(&key), None);
                at = lanes.another(&key);
            }
        }
        assert_eq!(letters, all.len());
        assert_eq!(lanes.lock().crew, 0);
    }

    #[test]
    fn whoever_waits_in_an_empty_lane_comes_when_another_has_nobody() {
        let account = Account { hosts: vec![Host::Mx(25)], ..Account::new("direct") };
        let lanes = &Lanes::default();
        let (_, staffed) = domains(lanes, &account, CREW);
        thread::scope(|scope| {
            for key in staffed {
                scope.spawn(move || {
                    let mut at = Some(key);
                    while let Some(key) = at {
                        while lanes.wait(&key).is_some() {}
                        at = lanes.another(&key);
                    }
                });
            }
            // The crew is complete, and all of it may be waiting.
            let last = Some(Destination { account: &account, domain: Some("last.example".to_owned()) });
            assert!(!lanes.push(&last, id(2), 2));
            while lanes.lock().lanes.get(&last).is_some_and(|lane| !lane.waiting.is_empty()) {
                thread::yield_now();
            }
            lanes.close(false);
        });
    }

    #[test]
    fn an_account_gets_workers_by_its_backlog_and_they_stay() {
        let account = Account::new("relay");
        let (lanes, key) = (&Lanes::default(), Some(Destination { account: &account, domain: None }));
        let asked: Vec<u64> = (0..100).filter(|&i| lanes.push(&key, id(i), 2)).collect();
        assert_eq!(asked, [0, 16], "one at once, another when there is work for two, and no third");
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| while lanes.wait(&key).is_some() {});
            }
            while lanes.lock().lanes.get(&key).is_some_and(|lane| !lane.waiting.is_empty()) {
                thread::yield_now();
            }
            lanes.push(&key, id(100), 2);
            lanes.close(false);
        });
        assert_eq!((lanes.next(&key), lanes.another(&key)), (None, None));
    }

    #[test]
    fn the_last_worker_of_a_lane_cannot_leave_a_letter_behind() {
        let account = Account::new("relay");
        let (lanes, key) = (Lanes::default(), Some(Destination { account: &account, domain: None }));
        assert!(lanes.push(&key, id(1), 2));
        assert!(!lanes.resign(&key, &[id(2)]));
        lanes.lock().lanes.get_mut(&key).unwrap().workers += 1;
        assert!(lanes.resign(&key, &[id(2)]));
        lanes.close(false);
        assert_eq!((lanes.wait(&key), lanes.wait(&key), lanes.wait(&key)), (Some(id(1)), Some(id(2)), None));
    }
}

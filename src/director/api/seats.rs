//! Who has a place at the API, and who gives way. Each user has a share, some places are
//! root's alone, and where places are short the client that has rested longest goes: it may
//! come again when it has something to ask.

use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::rights::{Access, CLIENTS_MAX, ROOT_PLACES};

/// Who has done nothing for this long gives way.
pub(super) const REST_MIN: Duration = match cfg!(test) {
    false => Duration::from_secs(1),
    true => Duration::from_millis(200),
};

/// A client's place.
#[derive(Debug)]
pub(super) struct Seat {
    pub user: u32,
    pub access: Access,
    now: Mutex<Doing>,
}

#[derive(Debug)]
struct Doing {
    /// A request is being answered: its head is complete, and the time is not the client's.
    is_answering: bool,
    /// Requests whose heads were complete.
    heads: u64,
    /// When it last sent or took something.
    moved: Instant,
    /// It is to go.
    gives_way: bool,
    waker: Option<Waker>,
}

impl Seat {
    fn new(user: u32, access: Access, now: Instant) -> Self {
        Self {
            user,
            access,
            now: Mutex::new(Doing {
                is_answering: false,
                heads: 0,
                moved: now,
                gives_way: false,
                waker: None,
            }),
        }
    }

    /// A request begins to be answered.
    pub(super) fn answering(self: &Arc<Self>) -> Answering {
        let mut now = self.now.lock();
        now.is_answering = true;
        now.heads += 1;
        Answering(self.clone())
    }

    pub(super) fn is_answering(&self) -> bool {
        self.now.lock().is_answering
    }

    /// Requests whose heads were complete.
    pub(super) fn heads(&self) -> u64 {
        self.now.lock().heads
    }

    /// The client sent or took something.
    pub(super) fn moved(&self) {
        self.now.lock().moved = Instant::now();
    }

    /// Whether the client is to go; if not, the task is woken when it is.
    pub(super) fn gives_way(&self, context: &Context<'_>) -> bool {
        let mut now = self.now.lock();
        now.waker = Some(context.waker().clone());
        now.gives_way
    }

    /// Since when the client could be spared; none while it could not.
    fn rests_since(&self, at: Instant) -> Option<Instant> {
        let now = self.now.lock();
        let is_long = at.saturating_duration_since(now.moved) >= REST_MIN;
        (is_long && !now.is_answering).then_some(now.moved)
    }

    fn give_way(&self) {
        let waker = {
            let mut now = self.now.lock();
            now.gives_way = true;
            now.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

/// While a request is answered, its client is not slow, and keeps its place.
pub(super) struct Answering(Arc<Seat>);

impl Drop for Answering {
    fn drop(&mut self) {
        let mut now = self.0.now.lock();
        now.is_answering = false;
        now.moved = Instant::now();
    }
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Full {
    /// The user has all that it may have, so many.
    Share(usize),
    /// All places for clients like this are taken.
    Places,
}

/// All places.
#[derive(Debug, Default)]
pub(super) struct Seats(Vec<Arc<Seat>>);

impl Seats {
    /// A place for a client of `user`, and whether another had to go.
    pub(super) fn take(
        &mut self,
        user: u32,
        access: Access,
        at: Instant,
    ) -> Result<(Arc<Seat>, bool), Full> {
        let share = access.limits().share;
        let of_user = |seat: &Seat| seat.user == user;
        let of_others = |seat: &Seat| seat.access < Access::Root;
        let is_root = access == Access::Root;
        let lesser = |seat: &Seat| is_root || of_others(seat);
        let mut gave_way = false;
        let is_short = self.count(of_user) >= share;
        gave_way |= self.spare(is_short, of_user, at, Full::Share(share))?;
        let is_short = !is_root && self.count(of_others) >= CLIENTS_MAX - ROOT_PLACES;
        gave_way |= self.spare(is_short, of_others, at, Full::Places)?;
        let is_short = self.0.len() >= CLIENTS_MAX;
        gave_way |= self.spare(is_short, lesser, at, Full::Places)?;
        let seat = Arc::new(Seat::new(user, access, at));
        self.0.push(seat.clone());
        Ok((seat, gave_way))
    }

    /// Its client has gone.
    pub(super) fn leave(&mut self, seat: &Arc<Seat>) {
        self.0.retain(|other| !Arc::ptr_eq(other, seat));
    }

    fn count(&self, is_meant: impl Fn(&Seat) -> bool) -> usize {
        self.0.iter().filter(|seat| is_meant(seat)).count()
    }

    /// Where places are short, has one of these go; whether it did.
    fn spare(
        &mut self,
        is_short: bool,
        is_meant: impl Fn(&Seat) -> bool,
        at: Instant,
        full: Full,
    ) -> Result<bool, Full> {
        match is_short {
            false => Ok(false),
            true if self.make_way(is_meant, at) => Ok(true),
            true => Err(full),
        }
    }

    /// Has the one go that has rested longest: first of those who may do least.
    fn make_way(&mut self, is_meant: impl Fn(&Seat) -> bool, at: Instant) -> bool {
        let resting = self.0.iter().enumerate();
        let resting = resting.filter(|(_, seat)| is_meant(seat));
        let resting = resting.filter_map(|(n, s)| Some((s.access, s.rests_since(at)?, n)));
        let Some((.., number)) = resting.min() else {
            return false;
        };
        self.0.swap_remove(number).give_way();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A room with these clients, all of which came at `at`.
    fn room(clients: &[(usize, u32, Access)], at: Instant) -> Seats {
        let mut seats = Seats::default();
        for &(count, user, access) in clients {
            for _ in 0..count {
                seats.take(user, access, at).unwrap();
            }
        }
        seats
    }

    #[test]
    fn places_and_shares() {
        use Access::{Change, Look, Root};
        let looking = [(16, 1, Look), (16, 2, Look), (16, 3, Look), (16, 4, Look)];
        let full = [looking.as_slice(), &[(32, 5, Change), (16, 6, Look)]].concat();
        let all = [full.as_slice(), &[(16, 0, Root)]].concat();
        let (place, share) = (Err(Full::Places), |n| Err(Full::Share(n)));
        // (clients there, who comes, at once, once they have rested)
        let rows = [
            ("an empty room", &[][..], 1, Look, Ok(false), Ok(false)),
            (
                "a reader's share",
                &looking[..1],
                1,
                Look,
                share(16),
                Ok(true),
            ),
            (
                "another reader",
                &looking[..1],
                2,
                Look,
                Ok(false),
                Ok(false),
            ),
            ("root's places", &full, 7, Look, place, Ok(true)),
            ("an operator likewise", &full, 7, Change, place, Ok(true)),
            ("which root may take", &full, 0, Root, Ok(false), Ok(false)),
            ("all taken", &all, 0, Root, place, Ok(true)),
            (
                "all by root",
                &[(128, 0, Root)],
                0,
                Root,
                share(128),
                Ok(true),
            ),
            (
                "root goes for nobody",
                &[(128, 0, Root)],
                1,
                Look,
                place,
                place,
            ),
        ];
        for (what, clients, user, access, at_once, later) in rows {
            let at = Instant::now();
            for (when, expected) in [(at, at_once), (at + REST_MIN, later)] {
                let mut seats = room(clients, at);
                let before = seats.0.len();
                let taken = seats.take(user, access, when).map(|(_, gave_way)| gave_way);
                assert_eq!(taken, expected, "{what}");
                let comes = usize::from(expected == Ok(false));
                assert_eq!(seats.0.len(), before + comes, "{what}");
            }
        }
    }

    #[test]
    fn the_one_that_may_do_least_and_rested_longest_goes() {
        let at = Instant::now();
        let mut seats = room(&[(112, 0, Access::Root)], at);
        let mut take = |user, access, later_ms| {
            let at = at + Duration::from_millis(later_ms);
            seats.take(user, access, at).unwrap().0
        };
        let operator = take(5, Access::Change, 0);
        let busy = take(1, Access::Look, 0);
        let later = take(2, Access::Look, 2);
        let longest = take(3, Access::Look, 1);
        let _answering = busy.answering();
        let gone = |seat: &Seat| seat.now.lock().gives_way;
        let rested = at + Duration::from_millis(9) + REST_MIN;
        for goes in [&longest, &later, &operator] {
            assert!(!gone(goes));
            assert!(seats.make_way(|seat| seat.access < Access::Root, rested));
            assert!(gone(goes), "{goes:?}");
        }
        assert!(!seats.make_way(|seat| seat.access < Access::Root, rested));
        assert!(!gone(&busy), "its request is being answered");
        seats.leave(&busy);
        assert_eq!(seats.0.len(), 112);
    }
}

//! Dense numbers for things that come and go. A number is reused as late as possible:
//! whoever still holds an old one is then likelier to notice that it means nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Values that lie together. A clone shares all of them, and a change copies one lot.
const LOT: usize = 128;

type Lot<T> = Vec<Option<T>>;

/// Values by number. Numbers start at 0 and never exceed the most values held at once.
#[derive(Clone, Debug)]
pub(crate) struct Slots<T> {
    /// All full but the last.
    lots: Vec<Arc<Lot<T>>>,
    end: usize,
    free: VecDeque<u32>,
}

impl<T: Clone> Slots<T> {
    pub fn new() -> Self {
        Self {
            lots: Vec::new(),
            end: 0,
            free: VecDeque::new(),
        }
    }

    /// These values at these numbers. Numbers between them are free.
    pub fn restore(values: BTreeMap<u32, T>) -> Self {
        let mut slots = Self::new();
        for (number, value) in values {
            while slots.end < number as usize {
                slots.free.push_back(slots.end as u32);
                slots.push(None);
            }
            slots.push(Some(value));
        }
        slots
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.end - self.free.len()
    }

    /// The number that the next value gets.
    pub fn next(&self) -> u32 {
        match self.free.front() {
            Some(&number) => number,
            None => u32::try_from(self.end).expect("limits are 32-bit"),
        }
    }

    /// Puts a value at [`Slots::next`].
    pub fn insert(&mut self, value: T) {
        match self.free.pop_front() {
            Some(number) => {
                if let Some(slot) = self.slot_mut(number) {
                    *slot = Some(value);
                }
            }
            None => self.push(Some(value)),
        }
    }

    pub fn get(&self, number: u32) -> Option<&T> {
        let (lot, place) = place(number);
        self.lots.get(lot)?.get(place)?.as_ref()
    }

    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.slot_mut(number)?.as_mut()
    }

    pub fn remove(&mut self, number: u32) {
        if let Some(slot) = self.slot_mut(number)
            && slot.take().is_some()
        {
            self.free.push_back(number);
        }
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.lots.iter().flat_map(|lot| lot.iter()).flatten()
    }

    /// The values of those lots that `other` does not share: all that may differ from its
    /// values, and some that do not.
    pub fn unshared_with<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a T> {
        let shared = |place: usize, lot: &Arc<Lot<T>>| {
            other
                .lots
                .get(place)
                .is_some_and(|theirs| Arc::ptr_eq(lot, theirs))
        };
        let lots = self.lots.iter().enumerate();
        lots.filter(move |(place, lot)| !shared(*place, lot))
            .flat_map(|(_, lot)| lot.iter())
            .flatten()
    }

    fn push(&mut self, value: Option<T>) {
        if self.end.is_multiple_of(LOT) {
            self.lots.push(Arc::new(Vec::with_capacity(LOT)));
        }
        if let Some(last) = self.lots.last_mut() {
            Arc::make_mut(last).push(value);
        }
        self.end += 1;
    }

    fn slot_mut(&mut self, number: u32) -> Option<&mut Option<T>> {
        let (lot, place) = place(number);
        Arc::make_mut(self.lots.get_mut(lot)?).get_mut(place)
    }
}

fn place(number: u32) -> (usize, usize) {
    (number as usize / LOT, number as usize % LOT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restored_values_keep_their_numbers() {
        let mut slots = Slots::restore(BTreeMap::from([(1, 'b'), (3, 'd')]));
        assert_eq!((slots.len(), slots.get(3)), (2, Some(&'d')));
        for expected in [0, 2, 4] {
            assert_eq!(slots.next(), expected);
            slots.insert('x');
        }
    }

    #[test]
    fn a_clone_shares_what_neither_changes() {
        let mut slots = Slots::new();
        (0..1000).for_each(|value| slots.insert(value));
        let before = slots.clone();
        assert_eq!(slots.unshared_with(&before).count(), 0);
        *slots.get_mut(500).unwrap() = 7;
        let unshared: Vec<_> = slots.unshared_with(&before).copied().collect();
        assert_eq!((unshared.len(), unshared[500 % LOT]), (LOT, 7));
        assert_eq!((before.get(500), slots.get(500)), (Some(&500), Some(&7)));
        slots.insert(1000);
        assert_eq!(slots.values().count(), 1001);
        assert_eq!(before.unshared_with(&slots).count(), LOT + 1000 % LOT);
    }

    #[test]
    fn numbers_are_dense_and_reused_oldest_first() {
        let mut slots = Slots::new();
        for value in 0..3 {
            slots.insert(value);
        }
        slots.remove(1);
        slots.remove(0);
        slots.remove(0);
        assert_eq!((slots.len(), slots.next()), (1, 1));
        slots.insert(7);
        assert_eq!((slots.get(1), slots.next()), (Some(&7), 0));
        slots.insert(8);
        assert_eq!(slots.next(), 3);
    }
}

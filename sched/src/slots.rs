//! Dense numbers for things that come and go. A number is reused as late as possible:
//! whoever still holds an old one is then likelier to notice that it means nothing.

use std::collections::{BTreeMap, VecDeque};

/// Values by number. Numbers start at 0 and never exceed the most values held at once.
#[derive(Clone, Debug)]
pub(crate) struct Slots<T> {
    slots: Vec<Option<T>>,
    free: VecDeque<u32>,
}

impl<T> Slots<T> {
    pub fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: VecDeque::new(),
        }
    }

    /// These values at these numbers. Numbers between them are free.
    pub fn restore(values: BTreeMap<u32, T>) -> Self {
        let mut slots = Self::new();
        for (number, value) in values {
            while slots.slots.len() < number as usize {
                slots.free.push_back(slots.slots.len() as u32);
                slots.slots.push(None);
            }
            slots.slots.push(Some(value));
        }
        slots
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The number that the next value gets.
    pub fn next(&self) -> u32 {
        match self.free.front() {
            Some(&number) => number,
            None => u32::try_from(self.slots.len()).expect("limits are 32-bit"),
        }
    }

    /// Puts a value at [`Slots::next`].
    pub fn insert(&mut self, value: T) {
        match self.free.pop_front() {
            Some(number) => self.slots[number as usize] = Some(value),
            None => self.slots.push(Some(value)),
        }
    }

    pub fn get(&self, number: u32) -> Option<&T> {
        self.slots.get(number as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    pub fn remove(&mut self, number: u32) {
        if let Some(slot) = self.slots.get_mut(number as usize)
            && slot.take().is_some()
        {
            self.free.push_back(number);
        }
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }
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

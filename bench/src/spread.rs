//! A figure measured several times.

use serde::{Deserialize, Serialize};

/// All measurements in the order in which they were made; the median counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Spread(Vec<f64>);

impl Spread {
    /// The median: of an even number, the mean of the middle two. NaN where there is none.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        match sorted.len() {
            0 => f64::NAN,
            n => (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0,
        }
    }

    /// The least. NaN where there is none.
    pub fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }

    /// The most. NaN where there is none.
    pub fn most(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::max)
    }

    /// How many measurements.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// `compare` for each round in which both were measured, one after the other: what the
    /// machine did meanwhile, it did to both. Where one was measured more often, rounds cannot
    /// be told, and the medians are compared.
    pub fn by_round(&self, other: &Self, compare: impl Fn(f64, f64) -> f64) -> Self {
        if self.len() != other.len() {
            return Self(vec![compare(self.median(), other.median())]);
        }
        let rounds = self.0.iter().zip(&other.0);
        rounds
            .map(|(&mine, &theirs)| compare(mine, theirs))
            .collect()
    }
}

impl FromIterator<f64> for Spread {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

impl From<Vec<f64>> for Spread {
    fn from(values: Vec<f64>) -> Self {
        Self(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let rows: [(&[f64], [f64; 3]); 4] = [
            (&[3.0], [3.0, 3.0, 3.0]),
            (&[3.0, 1.0], [1.0, 2.0, 3.0]),
            (&[9.0, 1.0, 2.0], [1.0, 2.0, 9.0]),
            (&[4.0, 1.0, 2.0, 9.0], [1.0, 3.0, 9.0]),
        ];
        for (values, expected) in rows {
            let mut pushed = Spread::default();
            values.iter().for_each(|value| pushed.push(*value));
            assert_eq!(pushed, Spread::from(values.to_vec()));
            let told = [pushed.least(), pushed.median(), pushed.most()];
            assert_eq!(told, expected, "{values:?}");
        }
        let none = Spread::default();
        assert!(
            [none.least(), none.median(), none.most()]
                .iter()
                .all(|value| value.is_nan())
        );
    }

    #[test]
    fn rounds_are_compared_with_their_own() {
        // (what, mine, theirs, the quotients)
        type Row = (&'static str, Vec<f64>, Vec<f64>, Vec<f64>);
        let rows: [Row; 3] = [
            (
                "a slow round for both",
                vec![9.0, 3.0, 9.0],
                vec![10.0, 4.0, 10.0],
                vec![0.9, 0.75, 0.9],
            ),
            (
                "one more of mine",
                vec![9.0, 9.0, 1.0],
                vec![10.0, 12.0],
                vec![9.0 / 11.0],
            ),
            ("none", vec![], vec![], vec![]),
        ];
        for (what, mine, theirs, quotients) in rows {
            let told = Spread::from(mine).by_round(&theirs.into(), |a, b| a / b);
            assert_eq!(told, Spread::from(quotients), "{what}");
        }
    }
}

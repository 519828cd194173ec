//! A figure measured several times.

use serde::{Deserialize, Serialize};

/// All measurements, sorted; the median counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<f64>", into = "Vec<f64>")]
pub struct Spread(Vec<f64>);

impl Spread {
    /// The median: of an even number, the mean of the middle two. NaN where there is none.
    pub fn median(&self) -> f64 {
        let n = self.0.len();
        match n {
            0 => f64::NAN,
            _ => (self.0[(n - 1) / 2] + self.0[n / 2]) / 2.0,
        }
    }

    /// The least. NaN where there is none.
    pub fn least(&self) -> f64 {
        self.0.first().copied().unwrap_or(f64::NAN)
    }

    /// The most. NaN where there is none.
    pub fn most(&self) -> f64 {
        self.0.last().copied().unwrap_or(f64::NAN)
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
        let at = self
            .0
            .partition_point(|known| known.total_cmp(&value).is_le());
        self.0.insert(at, value);
    }
}

impl From<Vec<f64>> for Spread {
    fn from(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

impl From<Spread> for Vec<f64> {
    fn from(spread: Spread) -> Self {
        spread.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let rows: [(&[f64], f64); 4] = [
            (&[3.0], 3.0),
            (&[3.0, 1.0], 2.0),
            (&[9.0, 1.0, 2.0], 2.0),
            (&[4.0, 1.0, 2.0, 9.0], 3.0),
        ];
        for (values, expected) in rows {
            let mut pushed = Spread::default();
            values.iter().for_each(|value| pushed.push(*value));
            assert_eq!(pushed, Spread::from(values.to_vec()));
            assert_eq!(pushed.median(), expected, "{values:?}");
        }
        assert!(Spread::default().median().is_nan());
    }
}

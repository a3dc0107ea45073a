//! Small honest statistics: a share with its interval, a mean with its interval.

/// A number with the interval in which the truth lies 95 times of 100.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Estimate {
    /// The point estimate.
    pub value: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// 97.5th percentile of the standard normal distribution.
const Z95: f64 = 1.959_963_984_540_054;

/// The share of successes, with Wilson's score interval (Wilson 1927): sound for few trials and for shares
/// near 0 and 1. `successes` may be fractional (a score between 0 and 1 for each trial). None without trials.
pub fn share(successes: f64, trials: usize) -> Option<Estimate> {
    if trials == 0 {
        return None;
    }
    let n = trials as f64;
    let p = (successes / n).clamp(0.0, 1.0);
    let z2 = Z95 * Z95;
    let centre = (p + z2 / (2.0 * n)) / (1.0 + z2 / n);
    let half = Z95 / (1.0 + z2 / n) * (p * (1.0 - p) / n + z2 / (4.0 * n * n)).sqrt();
    Some(Estimate {
        value: p,
        low: (centre - half).max(0.0),
        high: (centre + half).min(1.0),
    })
}

/// The mean of runs, with Student's interval for few runs; with one run the interval is the value itself.
pub fn mean(values: &[f64]) -> Option<Estimate> {
    // Two-sided 95 % quantiles of Student's t for 1 to 9 degrees of freedom; the normal one beyond.
    const T95: [f64; 9] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262,
    ];
    let n = values.len();
    if n == 0 {
        return None;
    }
    let value = values.iter().sum::<f64>() / n as f64;
    if n == 1 {
        return Some(Estimate {
            value,
            low: value,
            high: value,
        });
    }
    let variance = values.iter().map(|x| (x - value).powi(2)).sum::<f64>() / (n - 1) as f64;
    let t = T95.get(n - 2).copied().unwrap_or(Z95);
    let half = t * (variance / n as f64).sqrt();
    Some(Estimate {
        value,
        low: value - half,
        high: value + half,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_of_a_share_matches_published_values() {
        // Newcombe 1998, table I: 81 of 263 gives 0.2553 to 0.3662 by Wilson's method.
        let e = share(81.0, 263).unwrap();
        assert!(
            (e.low - 0.2553).abs() < 5e-5 && (e.high - 0.3662).abs() < 5e-5,
            "{e:?}"
        );
        // 0 of 20 gives 0 to 0.1611.
        let e = share(0.0, 20).unwrap();
        assert!(
            e.low.abs() < 1e-12 && (e.high - 0.1611).abs() < 5e-5,
            "{e:?}"
        );
        assert_eq!(share(0.0, 0), None);
    }

    #[test]
    fn the_interval_of_a_mean_uses_students_quantiles() {
        let e = mean(&[1.0, 2.0, 3.0]).unwrap();
        assert_eq!(e.value, 2.0);
        assert!((e.high - (2.0 + 4.303 / 3f64.sqrt())).abs() < 1e-9);
        assert_eq!(mean(&[4.0]).unwrap().low, 4.0);
        assert_eq!(mean(&[]), None);
    }
}

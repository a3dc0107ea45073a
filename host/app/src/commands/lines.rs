//! JSON Lines in and out, as `score` and `generate` speak it.
//!
//! Numbers go out with nine significant digits, which is what it takes to tell any two `f32` apart. Not a general JSON
//! writer: these two formats are contracts, so their bytes are written out here.

use std::fmt::Write as _;
use std::io::BufRead;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

/// The lines that hold a value, with their numbers from 1; blank lines are skipped. `what` names the source in errors.
pub(super) fn read<'a, T: DeserializeOwned>(
    input: impl BufRead + 'a,
    what: &'a str,
) -> impl Iterator<Item = Result<(usize, T)>> + 'a {
    let lines = input.lines().enumerate();
    lines.filter_map(move |(index, line)| {
        let number = index + 1;
        let parse = |line: std::io::Result<String>| -> Result<Option<(usize, T)>> {
            let line = line.with_context(|| format!("read {what}, line {number}"))?;
            if line.trim().is_empty() {
                return Ok(None);
            }
            let value =
                serde_json::from_str(&line).with_context(|| format!("{what}, line {number}"))?;
            Ok(Some((number, value)))
        };
        parse(line).transpose()
    })
}

/// A JSON list of ids.
pub(super) fn ids(ids: &[u32]) -> String {
    list(ids.iter().map(u32::to_string))
}

/// A JSON list of log-probs; `None` and numbers that JSON cannot say become `null`.
pub(super) fn logprobs(logprobs: impl IntoIterator<Item = Option<f32>>) -> String {
    list(logprobs.into_iter().map(|logprob| match logprob {
        Some(logprob) if logprob.is_finite() => nine_digits(logprob),
        _ => "null".into(),
    }))
}

fn list(items: impl Iterator<Item = String>) -> String {
    let mut out = String::from("[");
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&item);
    }
    out.push(']');
    out
}

/// A finite number with nine significant digits: plain between 1e-6 and 1e9, with an exponent otherwise.
pub(super) fn nine_digits(number: f32) -> String {
    let scientific = format!("{number:.8e}");
    let exponent = scientific
        .split_once('e')
        .and_then(|(_, e)| e.parse::<i32>().ok());
    match exponent.map(|exponent| usize::try_from(8 - exponent)) {
        Some(Ok(decimals)) if decimals <= 14 => {
            let mut plain = String::new();
            // Writing to a String cannot fail.
            let _ = write!(plain, "{:.decimals$}", f64::from(number));
            plain
        }
        _ => scientific,
    }
}

#[cfg(test)]
mod tests {
    use super::{ids, logprobs, nine_digits, read};

    #[test]
    fn nine_digits_tell_every_float_apart_and_are_json() {
        for (number, want) in [
            (-1.0f32, "-1.00000000"),
            (-0.123_456_79, "-0.123456791"),
            (-12.5, "-12.5000000"),
            (0.0, "0.00000000"),
            (-1e-5, "-0.00000999999975"),
            (-1e-7, "-1.00000001e-7"),
        ] {
            assert_eq!(nine_digits(number), want);
        }
        let mut bits = 1u32;
        for _ in 0..20_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let number = f32::from_bits(bits);
            if number.is_finite() {
                let text = nine_digits(number);
                assert_eq!(text.parse::<f32>().unwrap().to_bits(), bits, "{text}");
                assert!(serde_json::from_str::<f64>(&text).is_ok(), "{text}");
            }
        }
    }

    #[test]
    fn what_has_no_number_is_null() {
        assert_eq!(
            logprobs([None, Some(-0.5), Some(f32::NEG_INFINITY)]),
            "[null,-0.500000000,null]"
        );
        assert_eq!(ids(&[]), "[]");
        assert_eq!(ids(&[1, 22]), "[1,22]");
    }

    #[test]
    fn a_bad_line_is_named_by_its_number_and_blank_lines_count() {
        let input: &[u8] = b"[1]\n\n[2]\nnot json\n";
        let read: Vec<_> = read::<Vec<u32>>(input, "standard input").collect();
        assert_eq!(read[0].as_ref().unwrap(), &(1, vec![1]));
        assert_eq!(read[1].as_ref().unwrap(), &(3, vec![2]));
        let error = format!("{:#}", read[2].as_ref().unwrap_err());
        assert!(error.starts_with("standard input, line 4: "), "{error}");
        let binary: &[u8] = b"[1]\n\xff\xfe\n";
        let read: Vec<_> = super::read::<Vec<u32>>(binary, "samples").collect();
        assert!(read[1].as_ref().unwrap_err().to_string().contains("line 2"));
    }
}

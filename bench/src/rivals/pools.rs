//! The number of connections to the database that serves each rival best: all numbers for all rivals by one
//! command, within a limit of time.

use std::fmt::Write as _;
use std::time::Instant;

use serde_json::{Value, json};

use super::Bench;
use super::contender::{Contender, RedisSync};
use super::kind::RivalKind;
use super::measure::{Coupons, measure};
use crate::compare::series::Series;
use crate::load::Failed;

/// The numbers of connections that are tried by default.
const SIZES: [u16; 7] = [1, 2, 4, 8, 16, 32, 64];
/// A smaller number is as good if its rate is at least this part of the highest.
const AS_GOOD: f64 = 0.95;

/// One rival with its rates, by the numbers of connections.
#[derive(Debug)]
struct Row {
    kind: RivalKind,
    rates: Vec<Series>,
}

/// Measures the rivals among the contenders, and returns the table and the figures.
pub(super) async fn measured(bench: &Bench<'_>, contenders: &[Contender]) -> Result<(String, Value), Failed> {
    let sizes = match bench.flags.pools.as_slice() {
        [] => &SIZES[..],
        sizes => sizes,
    };
    let mut rows: Vec<Row> = Vec::new();
    for contender in contenders {
        if let Contender::Rival { kind, .. } = contender
            && rows.iter().all(|row| row.kind != *kind)
        {
            rows.push(Row {
                kind: *kind,
                rates: vec![Series::default(); sizes.len()],
            });
        }
    }
    let is_whole = sweep(bench, sizes, &mut rows).await?;
    let mut text = markdown(sizes, &rows);
    if !is_whole {
        let _ = write!(
            text,
            "\nThe limit of {:?} ended the measurement before its last round was over.",
            bench.flags.within
        );
    }
    Ok((text, json(sizes, &rows)))
}

/// Measures round after round, and each rival with each number. Returns false if there was no time for all.
async fn sweep(bench: &Bench<'_>, sizes: &[u16], rows: &mut [Row]) -> Result<bool, Failed> {
    let begun = Instant::now();
    for round in 1..=bench.flags.rounds {
        for row in &mut *rows {
            for (size, rates) in sizes.iter().zip(&mut row.rates) {
                if begun.elapsed() > bench.flags.within {
                    return Ok(false);
                }
                let contenders = [Contender::Rival {
                    kind: row.kind,
                    sync: RedisSync::EverySecond,
                    connections: Some(*size),
                }];
                let (demand, warm_up) = (bench.flags.demand(), bench.flags.warm_up);
                let measured = bench.one_round(round, &contenders, async |running, _| {
                    let figures = measure(running, Coupons::one(None), demand, warm_up).await?;
                    rates.add(figures.issued_per_second);
                    Ok(())
                });
                measured.await?;
            }
        }
    }
    Ok(true)
}

/// Returns the best of these numbers: the smallest that is as good as the one with the highest rate. Numbers
/// without a rate are left out.
pub(super) fn best(rates: &[(u16, f64)]) -> Option<u16> {
    let highest = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let good = rates
        .iter()
        .filter(|(_, rate)| *rate > 0.0 && *rate >= AS_GOOD * highest);
    good.map(|(size, _)| *size).min()
}

/// Returns what the best number means.
pub(super) fn note() -> String {
    format!(
        "The best is the smallest number of connections with at least {} % of the highest median.",
        AS_GOOD * 100.0
    )
}

impl Row {
    fn best(&self, sizes: &[u16]) -> Option<u16> {
        let medians = self.rates.iter().map(Series::median);
        best(&sizes.iter().copied().zip(medians).collect::<Vec<_>>())
    }
}

fn markdown(sizes: &[u16], rows: &[Row]) -> String {
    let mut text = "| issued/s by connections |".to_owned();
    for size in sizes {
        let _ = write!(text, " {size} |");
    }
    let _ = writeln!(
        text,
        " best | default |\n|---{}|---|---|",
        "|---".repeat(sizes.len())
    );
    for row in rows {
        let _ = write!(text, "| {} |", row.kind.title());
        for rates in &row.rates {
            let _ = write!(text, " {} |", rates.shown(0));
        }
        let best = row.best(sizes).map_or("–".to_owned(), |best| best.to_string());
        let _ = writeln!(text, " {best} | {} |", row.kind.connections());
    }
    let _ = write!(text, "\n{}", note());
    text
}

fn json(sizes: &[u16], rows: &[Row]) -> Value {
    rows.iter()
        .map(|row| {
            let rates = sizes.iter().zip(&row.rates);
            let rates: Vec<Value> = rates
                .map(|(size, rates)| json!({"connections": size, "issued_per_second": rates.median()}))
                .collect();
            json!({"name": row.kind, "rates": rates, "best": row.best(sizes), "default": row.kind.connections()})
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_number_is_the_smallest_that_is_nearly_as_fast_as_the_fastest() {
        let rates = [
            (1, 500.0),
            (2, 940.0),
            (4, 960.0),
            (8, 1_000.0),
            (16, 990.0),
            (32, 0.0),
        ];
        assert_eq!(best(&rates), Some(4));
        assert_eq!(best(&[(8, 0.0)]), None);
        let mut row = Row {
            kind: RivalKind::RowLock,
            rates: vec![Series::default(); 3],
        };
        for (rates, rate) in row.rates.iter_mut().zip([900.0, 910.0]) {
            rates.add(rate);
        }
        let text = markdown(&[4, 8, 16], &[row]);
        assert!(text.contains("| 900 | 910 | – | 4 | 8 |"), "{text}");
    }
}

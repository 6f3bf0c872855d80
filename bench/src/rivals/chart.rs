//! A chart of rate and p99 of all contenders, as SVG, with what the checker found of each.
//!
//! Both axes are logarithmic, as the fastest is a hundred times as fast as the slowest. A bar ends at the
//! median; a thin line goes from the least to the most of all rounds.

use std::fmt::Write as _;

/// A contender in the chart.
#[derive(Debug, Clone)]
pub(super) struct Bars {
    pub(super) name: String,
    /// True for the contender that the others are compared with.
    pub(super) is_own: bool,
    /// True if the contender breaks its promises.
    pub(super) is_broken: bool,
    /// What the checker found, in a few words.
    pub(super) verdict: String,
    pub(super) issued_per_second: Range,
    pub(super) p99_ms: Range,
}

/// A figure of all rounds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Range {
    pub(super) least: f64,
    pub(super) median: f64,
    pub(super) most: f64,
}

const ROW: f64 = 26.0;
const TOP: f64 = 72.0;
/// Space for the names, which are at most 45 characters long.
const NAMES: f64 = 320.0;
const PANEL: f64 = 300.0;
/// Space between panels, in which figures beside the longest bars still fit.
const GAP: f64 = 75.0;
const VERDICTS: f64 = 350.0;

/// The colours of a contender that others are compared with, of one that keeps its promises, and of one that
/// does not.
const COLORS: [(&str, &str); 3] = [
    ("#1b7f5c", "Firstcome"),
    ("#7f94ad", "exact"),
    ("#c9584b", "breaks its promises"),
];

/// A panel with its own axis.
struct Panel {
    left: f64,
    /// The powers of ten at both ends of the axis.
    from: i32,
    to: i32,
}

impl Panel {
    fn of(left: f64, ranges: impl Iterator<Item = Range> + Clone) -> Self {
        let least = ranges
            .clone()
            .map(|range| range.least)
            .fold(f64::INFINITY, f64::min);
        let most = ranges.map(|range| range.most).fold(0.0, f64::max);
        let power = |value: f64| value.clamp(0.01, 1e9).log10();
        let from = power(least).floor() as i32;
        Self {
            left,
            from,
            to: (power(most).ceil() as i32).max(from + 1),
        }
    }

    fn x(&self, value: f64) -> f64 {
        let power = value.clamp(0.01, 1e9).log10() - f64::from(self.from);
        self.left + PANEL * (power / f64::from(self.to - self.from)).clamp(0.0, 1.0)
    }

    fn axis(&self, svg: &mut String, title: &str, bottom: f64) {
        heading(svg, self.left, title);
        for power in self.from..=self.to {
            let value = 10f64.powi(power);
            let x = self.x(value);
            let _ = writeln!(
                svg,
                r##"<line x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{bottom}" stroke="#ddd"/><text x="{x:.1}" y="{}" text-anchor="middle" fill="#666">{}</text>"##,
                TOP - 8.0,
                grouped(value, usize::from(value < 1.0))
            );
        }
    }

    fn bar(&self, svg: &mut String, range: Range, y: f64, color: &str, decimals: usize) {
        let (end, least, most) = (self.x(range.median), self.x(range.least), self.x(range.most));
        let middle = y + 9.0;
        let _ = writeln!(
            svg,
            r##"<rect x="{}" y="{y}" width="{:.1}" height="18" fill="{color}"/><line x1="{least:.1}" y1="{middle}" x2="{most:.1}" y2="{middle}" stroke="#222"/><text x="{:.1}" y="{}">{}</text>"##,
            self.left,
            (end - self.left).max(1.0),
            most.max(end) + 5.0,
            y + 14.0,
            grouped(range.median, decimals),
        );
    }
}

/// Returns the chart.
pub(super) fn svg(bars: &[Bars]) -> String {
    let bottom = TOP + ROW * bars.len() as f64 + 4.0;
    let rates = Panel::of(NAMES, bars.iter().map(|bars| bars.issued_per_second));
    let latencies = Panel::of(NAMES + PANEL + GAP, bars.iter().map(|bars| bars.p99_ms));
    let verdicts = NAMES + 2.0 * (PANEL + GAP);
    let (width, height) = (verdicts + VERDICTS, bottom + 48.0);
    // Writing to a String does not fail.
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="12" fill="#222">
<rect x="0" y="0" width="{width}" height="{height}" fill="#fff"/>
"##
    );
    rates.axis(
        &mut svg,
        "issued per second (more is better, logarithmic)",
        bottom,
    );
    latencies.axis(&mut svg, "p99 in ms (less is better, logarithmic)", bottom);
    heading(&mut svg, verdicts, "what the checker found");
    for (place, bars) in bars.iter().enumerate() {
        let y = TOP + ROW * place as f64 + 4.0;
        let (color, _) = COLORS[match (bars.is_own, bars.is_broken) {
            (_, true) => 2,
            (true, false) => 0,
            (false, false) => 1,
        }];
        let _ = writeln!(
            svg,
            r##"<text x="{}" y="{}" text-anchor="end">{}</text><text x="{verdicts}" y="{}">{}</text>"##,
            NAMES - 10.0,
            y + 14.0,
            escaped(&bars.name),
            y + 14.0,
            escaped(&bars.verdict)
        );
        rates.bar(&mut svg, bars.issued_per_second, y, color, 0);
        latencies.bar(&mut svg, bars.p99_ms, y, color, 1);
    }
    legend(&mut svg, bottom + 26.0);
    svg.push_str("</svg>\n");
    svg
}

fn heading(svg: &mut String, x: f64, text: &str) {
    let _ = writeln!(svg, r##"<text x="{x}" y="30" font-weight="bold">{text}</text>"##);
}

/// Draws what colours and lines mean, on one line.
fn legend(svg: &mut String, y: f64) {
    let mut x = NAMES;
    for (color, meaning) in COLORS {
        let _ = writeln!(
            svg,
            r##"<rect x="{x}" y="{}" width="12" height="12" fill="{color}"/><text x="{}" y="{y}" fill="#666">{meaning}</text>"##,
            y - 10.0,
            x + 18.0
        );
        x += 40.0 + 7.0 * meaning.len() as f64;
    }
    let _ = writeln!(
        svg,
        r##"<text x="{x}" y="{y}" fill="#666">Bars end at the median; lines go from the least to the most of all rounds.</text>"##
    );
}

/// Returns a number with its thousands separated.
fn grouped(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut grouped = String::new();
    for (place, digit) in whole.chars().enumerate() {
        if place > 0 && (whole.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + rest
}

fn escaped(text: &str) -> String {
    text.replace('`', "")
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_contender_has_a_bar_in_each_panel_and_larger_figures_have_longer_bars() {
        let range = |median: f64| Range {
            least: median * 0.9,
            median,
            most: median * 1.1,
        };
        let bars = |name: &str, rate: f64| Bars {
            name: name.to_owned(),
            is_own: false,
            is_broken: rate > 10_000.0,
            verdict: "exact".to_owned(),
            issued_per_second: range(rate),
            p99_ms: range(20_000.0 / rate),
        };
        let all = [bars("`a` & b", 900.0), bars("c", 30_000.0)];
        let text = svg(&all);
        assert_eq!(text.matches("height=\"18\"").count(), 4, "{text}");
        assert!(
            text.contains(">a &amp; b<") && text.contains(">30,000<"),
            "{text}"
        );
        let panel = Panel::of(0.0, all.iter().map(|bars| bars.issued_per_second));
        assert_eq!((panel.from, panel.to), (2, 5));
        assert!(panel.x(900.0) < panel.x(30_000.0) && panel.x(30_000.0) < PANEL);
        assert_eq!(panel.x(100.0), 0.0);
        // A colour for each bar, and one in the legend.
        assert_eq!(text.matches(COLORS[2].0).count(), 3, "{text}");
        assert_eq!(
            [grouped(1_234_567.0, 0), grouped(1_000.04, 1), grouped(0.1, 1)],
            ["1,234,567", "1,000.0", "0.1"]
        );
    }
}

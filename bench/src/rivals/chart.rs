//! A chart of rate and p99 of all contenders, as SVG.
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
    /// True if the contender issues too many.
    pub(super) is_broken: bool,
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
const TOP: f64 = 64.0;
const NAMES: f64 = 250.0;
const PANEL: f64 = 330.0;
const GAP: f64 = 70.0;

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
        let _ = writeln!(
            svg,
            r##"<text x="{}" y="30" font-weight="bold">{title}</text>"##,
            self.left
        );
        for power in self.from..=self.to {
            let value = 10f64.powi(power);
            let x = self.x(value);
            let _ = writeln!(
                svg,
                r##"<line x1="{x}" y1="{TOP}" x2="{x}" y2="{bottom}" stroke="#ddd"/><text x="{x}" y="{}" text-anchor="middle" fill="#666">{value}</text>"##,
                TOP - 8.0
            );
        }
    }

    fn bar(&self, svg: &mut String, range: Range, y: f64, color: &str, decimals: usize) {
        let (end, least, most) = (self.x(range.median), self.x(range.least), self.x(range.most));
        let middle = y + 9.0;
        let _ = writeln!(
            svg,
            r##"<rect x="{}" y="{y}" width="{}" height="18" fill="{color}"/><line x1="{least}" y1="{middle}" x2="{most}" y2="{middle}" stroke="#222"/><text x="{}" y="{}">{:.decimals$}</text>"##,
            self.left,
            (end - self.left).max(1.0),
            most.max(end) + 5.0,
            y + 14.0,
            range.median,
        );
    }
}

/// Returns the chart.
pub(super) fn svg(bars: &[Bars]) -> String {
    let bottom = TOP + ROW * bars.len() as f64;
    let rates = Panel::of(NAMES, bars.iter().map(|bars| bars.issued_per_second));
    let latencies = Panel::of(NAMES + PANEL + GAP, bars.iter().map(|bars| bars.p99_ms));
    let (width, height) = (NAMES + 2.0 * (PANEL + GAP), bottom + 40.0);
    // Writing to a String does not fail.
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" font-family="sans-serif" font-size="12" fill="#222">
<rect width="100%" height="100%" fill="#fff"/>
"##
    );
    rates.axis(&mut svg, "issued per second, logarithmic", bottom);
    latencies.axis(&mut svg, "p99 in ms, logarithmic", bottom);
    for (place, bars) in bars.iter().enumerate() {
        let y = TOP + ROW * place as f64 + 4.0;
        let color = match (bars.is_own, bars.is_broken) {
            (true, _) => "#1b7f5c",
            (false, true) => "#c9584b",
            (false, false) => "#7f94ad",
        };
        let _ = writeln!(
            svg,
            r##"<text x="{}" y="{}" text-anchor="end">{}</text>"##,
            NAMES - 10.0,
            y + 14.0,
            escaped(&bars.name)
        );
        rates.bar(&mut svg, bars.issued_per_second, y, color, 0);
        latencies.bar(&mut svg, bars.p99_ms, y, color, 1);
    }
    let _ = writeln!(
        svg,
        r##"<text x="{NAMES}" y="{}" fill="#666">Bars end at the median, thin lines go from least to most. Red: issues more than there are.</text>
</svg>"##,
        bottom + 24.0
    );
    svg
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
            is_broken: false,
            issued_per_second: range(rate),
            p99_ms: range(20_000.0 / rate),
        };
        let all = [bars("`a` & b", 900.0), bars("c", 30_000.0)];
        let text = svg(&all);
        assert_eq!(text.matches("height=\"18\"").count(), 4, "{text}");
        assert!(text.contains(">a &amp; b<") && text.contains(">30000<"), "{text}");
        let panel = Panel::of(0.0, all.iter().map(|bars| bars.issued_per_second));
        assert_eq!((panel.from, panel.to), (2, 5));
        assert!(panel.x(900.0) < panel.x(30_000.0) && panel.x(30_000.0) < PANEL);
        assert_eq!(panel.x(100.0), 0.0);
    }
}

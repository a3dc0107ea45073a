//! The picture: how many times faster ours is than each peer, row by row; 1 is equal.

use std::path::Path;

use anyhow::Context as _;
use plotters::prelude::*;

use super::report::Report;

const OURS: RGBColor = RGBColor(31, 98, 171);
const BEHIND: RGBColor = RGBColor(190, 80, 60);
const GREY: RGBColor = RGBColor(150, 150, 150);

/// One bar.
struct Bar {
    label: String,
    ratio: f64,
    spread: [f64; 2],
    target: Option<f64>,
}

/// Draws the ratios as bars, with their spread and what is aimed at; without peers, our own speeds as text.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn draw(path: &Path, report: &Report) -> anyhow::Result<()> {
    let bars = bars(report);
    let height = 150 + 34 * u32::try_from(bars.len().max(report.rows.len())).unwrap_or(30);
    let area = SVGBackend::new(path, (900, height)).into_drawing_area();
    (|| -> Result<(), DrawingAreaErrorKind<_>> {
        area.fill(&WHITE)?;
        let small = ("sans-serif", 13).into_font();
        let title = format!(
            "{}, {} threads, {}",
            report.model, report.threads, report.machine
        );
        area.draw(&Text::new(title, (16, 14), ("sans-serif", 16).into_font()))?;
        if bars.is_empty() {
            return draw_speeds(&area, report);
        }
        let most = bars
            .iter()
            .map(|bar| bar.spread[1].max(bar.target.unwrap_or(0.0)));
        let most = most.fold(1.5, f64::max) * 1.1;
        let rows = bars.len() as f64;
        let mut chart = ChartBuilder::on(&area)
            .margin(14)
            .margin_top(44)
            .x_label_area_size(40)
            .y_label_area_size(330)
            .build_cartesian_2d(0.0..most, 0.0..rows)?;
        let label = |y: &f64| {
            let bar = (rows - 1.0 - y.floor()).max(0.0) as usize;
            bars.get(bar).map_or(String::new(), |bar| bar.label.clone())
        };
        chart
            .configure_mesh()
            .disable_y_mesh()
            .disable_y_axis()
            .light_line_style(WHITE)
            .x_desc("speed of ours by speed of the peer, median of rounds; green: what is aimed at")
            .x_label_formatter(&|x| format!("{x:.1}"))
            .y_labels(0)
            .draw()?;
        for (index, bar) in bars.iter().enumerate() {
            let y = rows - 1.0 - index as f64;
            let color = if bar.ratio >= bar.target.unwrap_or(1.0) {
                OURS
            } else {
                BEHIND
            };
            let rectangle = Rectangle::new(
                [(0.0, y + 0.22), (bar.ratio, y + 0.78)],
                color.mix(0.75).filled(),
            );
            let spread = PathElement::new(
                [(bar.spread[0], y + 0.5), (bar.spread[1], y + 0.5)],
                BLACK.stroke_width(1),
            );
            chart.draw_series([rectangle])?;
            chart.draw_series([spread])?;
            if let Some(target) = bar.target {
                let line = [(target, y + 0.1), (target, y + 0.9)];
                chart.draw_series([PathElement::new(
                    line,
                    RGBColor(34, 139, 84).stroke_width(3),
                )])?;
            }
            let (_, at) = chart.backend_coord(&(0.0, y + 0.5));
            area.draw(&Text::new(label(&y), (16, at - 6), small.clone()))?;
        }
        chart.draw_series(LineSeries::new(
            [(1.0, 0.0), (1.0, rows)],
            GREY.stroke_width(1),
        ))?;
        area.present()
    })()
    .with_context(|| format!("failed to draw {}", path.display()))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Our own figures, when there is nobody to compare them with.
fn draw_speeds<'a>(
    area: &Area<'a>,
    report: &Report,
) -> Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>> {
    let mut y = 56;
    for row in &report.rows {
        for result in &row.results {
            let line = format!("{}: {:.1} tokens/s", row.title, result.speed[0]);
            area.draw(&Text::new(line, (16, y), ("sans-serif", 13).into_font()))?;
            y += 34;
        }
    }
    area.present()
}

fn bars(report: &Report) -> Vec<Bar> {
    let results = report
        .rows
        .iter()
        .flat_map(|row| row.results.iter().map(move |r| (row, r)));
    results
        .filter_map(|(row, result)| {
            let [ratio, least, most] = result.ratio?;
            Some(Bar {
                label: format!("{} / {}", row.name, result.contender.name()),
                ratio,
                spread: [least, most],
                target: result.target,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn the_picture_names_every_peer_and_without_peers_our_own_speeds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bench.svg");
        let mut report = report();
        draw(&path, &report).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.contains("decode-1 / llama.cpp BF16"), "{svg}");
        report.rows[0].results.truncate(1);
        draw(&path, &report).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.contains("decode, batch 1: 10.0 tokens/s"), "{svg}");
    }
}

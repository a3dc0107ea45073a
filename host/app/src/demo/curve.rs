//! The learning curve as an SVG: each interaction's score, its running mean, and the versions.

use std::path::Path;

use anyhow::Context as _;
use plotters::prelude::*;

/// One interaction on the curve.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub struct Point {
    /// From 1.
    pub interaction: usize,
    /// The programmatic rule's score of the reply, 0 to 1.
    pub score: f64,
    /// The version that replied.
    pub version: u64,
}

/// Replies that the running mean looks back on.
pub const WINDOW: usize = 8;

/// The mean score of the last [`WINDOW`] interactions at each interaction.
pub fn running_mean(points: &[Point]) -> Vec<f64> {
    (0..points.len())
        .map(|i| {
            let last = &points[(i + 1).saturating_sub(WINDOW)..=i];
            last.iter().map(|p| p.score).sum::<f64>() / last.len() as f64
        })
        .collect()
}

/// Draws the curve.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(
    path: &Path,
    title: &str,
    points: &[Point],
    before: f64,
    after: f64,
) -> anyhow::Result<()> {
    let blue = RGBColor(31, 98, 171);
    let grey = RGBColor(150, 150, 150);
    let green = RGBColor(34, 139, 84);
    let area = SVGBackend::new(path, (860, 400)).into_drawing_area();
    let last = points.len().max(1);
    (|| -> Result<(), DrawingAreaErrorKind<_>> {
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(52)
            .build_cartesian_2d(0f64..(last as f64 + 1.0), -0.04f64..1.04f64)?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .x_desc("interaction")
            .y_desc("satisfaction (rule)")
            .y_labels(6)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .y_label_formatter(&|y| format!("{y:.1}"))
            .draw()?;
        let level = |y: f64| vec![(0.0, y), (last as f64 + 1.0, y)];
        chart
            .draw_series(LineSeries::new(level(before), grey.stroke_width(1)))?
            .label(format!("held-out before: {before:.2}"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], grey));
        chart
            .draw_series(LineSeries::new(level(after), green.stroke_width(2)))?
            .label(format!("held-out after: {after:.2}"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], green.stroke_width(2)));
        let mean = running_mean(points);
        chart
            .draw_series(LineSeries::new(
                points
                    .iter()
                    .zip(&mean)
                    .map(|(p, m)| (p.interaction as f64, *m)),
                blue.stroke_width(2),
            ))?
            .label(format!("mean of the last {WINDOW} replies"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], blue.stroke_width(2)));
        chart.draw_series(
            points
                .iter()
                .map(|p| Circle::new((p.interaction as f64, p.score), 3, blue.mix(0.45).filled())),
        )?;
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(grey)
            .draw()?;
        area.present()
    })()
    .with_context(|| format!("failed to draw the learning curve {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(scores: &[f64]) -> Vec<Point> {
        scores
            .iter()
            .enumerate()
            .map(|(i, score)| Point {
                interaction: i + 1,
                score: *score,
                version: i as u64 / 4,
            })
            .collect()
    }

    #[test]
    fn the_running_mean_looks_back_on_eight_replies() {
        let mean = running_mean(&points(&[0., 0., 0., 0., 1., 1., 1., 1., 1., 1., 1., 1.]));
        assert_eq!(mean[0], 0.0);
        assert_eq!(mean[7], 0.5);
        assert_eq!(mean[11], 1.0);
    }

    #[test]
    fn a_curve_is_an_svg_with_its_labels_even_without_points() {
        let folder = tempfile::tempdir().unwrap();
        for n in [0, 1, 12] {
            let path = folder.path().join(format!("curve-{n}.svg"));
            draw(&path, "brief, combined", &points(&vec![1.0; n]), 0.1, 0.8).unwrap();
            let svg = std::fs::read_to_string(&path).unwrap();
            assert!(
                svg.starts_with("<svg") && svg.contains("held-out after: 0.80"),
                "{svg}"
            );
        }
    }
}

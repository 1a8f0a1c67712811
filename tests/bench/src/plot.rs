//! Plots of the page.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;

use crate::row::Plot;

const SIZE: (u32, u32) = (820, 480);

/// Both axes are logarithmic: what is compared differs by powers of ten.
pub(crate) fn write(plot: &Plot, file: &Path) -> anyhow::Result<()> {
    let points = || {
        plot.lines
            .iter()
            .flat_map(|l| &l.points)
            .filter(|(x, y)| *x > 0.0 && *y > 0.0)
    };
    let range = |of: fn(&(f64, f64)) -> f64| {
        let low = points().map(of).fold(f64::INFINITY, f64::min);
        let high = points().map(of).fold(0.0, f64::max);
        (low / 1.25)..(high * 1.25)
    };
    if points().next().is_none() {
        return Err(anyhow!("{} has no points", plot.name));
    }
    let drawn = || -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::new(file, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(&plot.title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(range(|p| p.0).log_scale(), range(|p| p.1).log_scale())?;
        chart
            .configure_mesh()
            .x_desc(&plot.x)
            .y_desc(&plot.y)
            .light_line_style(WHITE)
            .draw()?;
        for (i, line) in plot.lines.iter().enumerate() {
            let color = Palette99::pick(i).to_rgba();
            let points = line.points.iter().copied().filter(|(x, y)| *x > 0.0 && *y > 0.0);
            chart
                .draw_series(LineSeries::new(points.clone(), color.stroke_width(2)))?
                .label(&line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
            if line.points.len() <= 12 {
                chart.draw_series(points.map(|p| Circle::new(p, 3, color.filled())))?;
            }
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
        root.present()?;
        Ok(())
    };
    drawn().map_err(|e| anyhow!("{}: {e}", file.display()))
}

// Package report writes what a load run found for people, programs and papers, and
// compares runs. The bench command uses it.
//
// Write makes a directory: result.json (everything, units in names, a stable schema),
// result.csv (a row for each metric), report.html (one file that needs nothing else,
// for screens of any size, light or dark) and each plot as an SVG and a PNG file. Open
// reads result.json back, with the records beside it if there are any; Compare sets
// runs side by side, with bootstrap intervals of the ratios.
//
// Names of metrics are those of aiperf and genai-perf where they have one. Charts are
// made here: each is a chart value that draws on a canvas, which writes SVG (for page
// and file alike) or pixels, so a plot in a paper is the one that was looked at. Text
// from outside (configuration, classes of errors, names) is escaped where it is
// written, never before.
package report

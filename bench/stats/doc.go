// Package stats turns many measurements into few figures: histograms, summaries with
// percentiles, and bootstrap intervals. The load generator records with it, the
// reports and comparisons read from it.
//
// It is pure: no clock, no I/O, no goroutine; random draws come from the caller's
// seed, so that a figure can be computed again. Nothing in it is safe for use by
// several goroutines at once; each recorder has its own Histogram and they are merged.
//
// Percentiles are those of numpy's default method (and so of aiperf and genai-perf):
// the value at rank q·(n−1) of the sorted samples, between two samples in proportion.
// Standard deviations are of the population (division by n), as numpy's std.
package stats

package report

// The limits of the package, and what happens at each.
const (
	// maxResultBytes bounds a result.json that is read; a larger one is refused.
	maxResultBytes = 256 << 20
	// maxRecordBytes bounds a line of records.jsonl, and maxRecords their number; with
	// more, a comparison uses the histograms of result.json instead.
	maxRecordBytes = 16 << 20
	maxRecords     = 1 << 20
	// maxRuns bounds the runs of one comparison: as many as there are colours.
	maxRuns = 6
	// maxSeriesPoints bounds the points of a line over time; longer series are drawn
	// with several seconds a point.
	maxSeriesPoints = 240
	// cdfPoints is the number of points of a distribution's line.
	cdfPoints = 220
	// maxBars bounds the bars of a histogram of lengths.
	maxBars = 40
	// maxLegendLetters bounds the letters of a legend, six of them for each line drawn
	// beside its name; runs with longer names go by their letters.
	maxLegendLetters = 58
	// wideSpread is how many times the least the greatest time of a plot over loads is,
	// before its scale is logarithmic.
	wideSpread = 30
	// maxTicks bounds the ticks of an axis; more are left out.
	maxTicks = 100
	// maxClassesShown bounds the classes of errors in the page; the rest are summed up.
	maxClassesShown = 20
	// maxValueShown bounds the text of a configuration value in the page and in the
	// list of differences, in bytes; a longer one is cut there, not in result.json.
	maxValueShown = 300
)

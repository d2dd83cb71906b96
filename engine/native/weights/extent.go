package weights

import (
	"cmp"
	"slices"
)

// extent is the place of one tensor in the data of a file.
type extent struct {
	name       string
	begin, end int64
}

// overlap sorts the extents by place and returns two that share bytes.
func overlap(all []extent) (a, b extent, found bool) {
	slices.SortFunc(all, func(x, y extent) int {
		return cmp.Or(cmp.Compare(x.begin, y.begin), cmp.Compare(x.end, y.end))
	})
	for i := 1; i < len(all); i++ {
		if all[i].begin < all[i-1].end {
			return all[i-1], all[i], true
		}
	}
	return extent{}, extent{}, false
}

package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"
)

// repair has the workers lose some of the events of their caches on the way, which
// nobody can notice but by the digests that the workers tell, and wants every frontend to
// find and mend what it has missed.
func (o *options) repair(ctx context.Context, dir string, t *table) error {
	c, err := o.newCluster(ctx, dir, 2, "--speedup-ratio=0", "--fault=lose-events="+strconv.FormatFloat(loseEvents, 'g', -1, 64))
	defer c.stop()
	if err != nil {
		return err
	}
	k := &client{urls: c.urls(), prompt: repairTokens, answer: 1, distinct: true}
	if sum := k.run(ctx, repairRequests); len(sum.lost) > 0 {
		return sum.lost[0]
	}
	ended := time.Now()
	blocks, mended, err := c.settle(ctx)
	if err != nil {
		return err
	}
	t.add("events lost unseen", "%.1f %%; repairs of each frontend, in place and anew: %v; all know the same %d blocks %v after the load", 100*loseEvents, mended, blocks, (time.Since(ended) - digestWithin).Round(time.Second))
	if slices.Contains(mended, repairs{}) {
		return fmt.Errorf("a frontend has found nothing to mend (%v), though events were lost", mended)
	}
	return nil
}

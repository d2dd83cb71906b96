package node

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/dynamo-go/dynamo/kvbm/daemon"
	"github.com/dynamo-go/dynamo/kvbm/tier"
	"github.com/dynamo-go/dynamo/transfer/s3"
)

// openRemote opens the store that r names, for c.
func (n *Node) openRemote(r *remoteStore, c *tier.Config) (err error) {
	if r.scheme == "s3" {
		return n.openBucket(r, c)
	}
	g := &c.Geometry
	sc := daemon.StoreConfig{
		Socket: r.path, Name: n.clientName(), FrameBytes: g.FrameBytes(), BlockTokens: g.BlockTokens, Logger: n.cfg.Logger,
		Content: fmt.Sprintf("%s | %s | %s | %s", g.Content.Revision, g.Content.Layout, g.Content.DType, g.Content.Shard),
	}
	// Its memory is this host's.
	c.Tiers.Remote.Bandwidth, c.Tiers.Remote.Latency, c.Tiers.Remote.Workers = 1e9, 100*time.Microsecond, 4
	c.Remote, err = daemon.OpenStore(sc)
	return err
}

// bucket is the client of the object store that u names, for blocks under a name.
func (c *TiersConfig) bucket(u *url.URL, name string) s3.Config {
	query, sc := u.Query(), s3.DefaultConfig()
	sc.Endpoint, sc.Bucket = query.Get("endpoint"), u.Host
	sc.Prefix = strings.TrimPrefix(strings.Trim(u.Path, "/")+"/"+name, "/")
	sc.KeyID, sc.Secret, sc.Session, sc.Region = c.Access.KeyID, c.Access.Secret, c.Access.Session, c.Access.Region
	if region := query.Get("region"); region != "" {
		sc.Region = region
	}
	return sc
}

// checkBucket says what can be seen to be wrong with an object store without asking it.
func (c *TiersConfig) checkBucket(u *url.URL) error {
	for key := range u.Query() {
		if key != "endpoint" && key != "region" {
			return fmt.Errorf("--kvbm-remote: s3://BUCKET/PREFIX has no %q; endpoint and region are possible", key)
		}
	}
	sc := c.bucket(u, "")
	if err := sc.Validate(); err != nil {
		return fmt.Errorf("--kvbm-remote: %w", err)
	}
	return nil
}

// openBucket opens an object store. Its latency is hidden by more requests at once.
func (n *Node) openBucket(r *remoteStore, c *tier.Config) error {
	sc := n.cfg.Tiers.bucket(r.url, geometryName(&c.Geometry))
	sc.Logger, sc.Metrics = n.cfg.Logger, n.tiers.objects()
	b, err := s3.New(sc)
	if err != nil {
		return fmt.Errorf("--kvbm-remote: %w", err)
	}
	c.Tiers.Remote.Workers = bucketLanes
	c.Remote = tier.NewBucket(b)
	return nil
}

// clientName is how the KV daemon of this host knows this process, in all its lives.
func (n *Node) clientName() string {
	name := n.cfg.ModelName
	if id := n.cfg.Worker.ID; id != 0 {
		name = id.String() + " " + name
	}
	return name[:min(len(name), daemon.MaxNameBytes)]
}

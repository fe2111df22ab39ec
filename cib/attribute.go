package cib

import (
	"context"
	"time"
)

// AttributeTimeout is how long setting an attribute may take: the daemon's loop waits for it.
const AttributeTimeout = 5 * time.Second

// SetAttribute sets a transient node attribute. Its errors are those of this package; ErrTimeout and ErrClusterDown are worth
// a retry.
func (c *Client) SetAttribute(ctx context.Context, node, name, value string) error {
	ctx, cancel := context.WithTimeout(ctx, AttributeTimeout)
	defer cancel()
	return SetAttribute(node, name, value).Run(ctx)
}

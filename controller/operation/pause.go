package operation

import (
	"context"
	"fmt"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// Pause makes the steps that pause pgrex on every host, or let it go on: none where that is so already.
func Pause(ctx context.Context, clusters controller.ClusterReader, resource string, paused bool) ([]Step, error) {
	clone, is, err := isPaused(ctx, clusters, resource)
	if err != nil || is == paused {
		return nil, err
	}
	// Pacemaker itself finds out whether the attribute is the primitive's or the clone's.
	command := cib.DeleteMeta(clone.Primitive, model.MetaPaused)
	if paused {
		command = cib.SetMeta(clone.Primitive, model.MetaPaused, "true")
	}
	return []Step{run(command, nil), {
		Text: fmt.Sprintf("see that the CIB says so: %s=%t", model.MetaPaused, paused), Do: func(ctx context.Context) error {
			_, is, err := isPaused(ctx, clusters, resource)
			if err == nil && is != paused {
				err = fmt.Errorf("it still is %t: it is set elsewhere, too; look for it with cibadmin --query", is)
			}
			return err
		},
	}}, nil
}

func isPaused(ctx context.Context, clusters controller.ClusterReader, resource string) (model.Clone, bool, error) {
	cluster, err := clusters.Read(ctx)
	if err != nil {
		return model.Clone{}, false, err
	}
	clone, err := reconcile.Database(cluster, resource)
	if err != nil {
		return clone, false, err
	}
	policy, _ := model.PolicyOf(clone)
	return clone, policy.Paused, nil
}

package service

import (
	"context"
	"fmt"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
	"github.com/pgrex/pgrex/controller/operation"
	"github.com/pgrex/pgrex/model"
	"github.com/pgrex/pgrex/reconcile"
)

// Pause makes the actions that pause pgrex on every host, or let it go on. There are none if there is nothing to do.
func Pause(ctx context.Context, observer *controller.Observer, paused bool) ([]operation.Action, error) {
	who, err := pausable(ctx, observer)
	if err != nil || who.Policy.Paused == paused {
		return nil, err
	}
	// Pacemaker itself finds out whether the attribute is the primitive's or the clone's.
	command := cib.DeleteMeta(who.Clone.Primitive, model.MetaPaused)
	if paused {
		command = cib.SetMeta(who.Clone.Primitive, model.MetaPaused, "true")
	}
	return []operation.Action{
		operation.Command{Command: command},
		operation.Look{Text: fmt.Sprintf("see that the CIB says so: %s=%t", model.MetaPaused, paused), See: func(ctx context.Context) error {
			who, err := pausable(ctx, observer)
			if is := who.Policy.Paused; err == nil && is != paused {
				err = fmt.Errorf("it is still %t, because it is set elsewhere, too: look for it with cibadmin --query", is)
			}
			return err
		}},
	}, nil
}

// pausable is a look at the cluster. It may be made on a host that is no node, because it is about all of them.
func pausable(ctx context.Context, observer *controller.Observer) (reconcile.Who, error) {
	who, err := observer.Cluster(ctx)
	if who.Clone.Primitive != "" {
		err = nil
	}
	return who, err
}

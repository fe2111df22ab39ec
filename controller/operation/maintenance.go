package operation

import (
	"context"

	"github.com/pgrex/pgrex/cib"
	"github.com/pgrex/pgrex/controller"
)

// MaintenanceMode is the cluster's property that takes every resource out of Pacemaker's hands.
const MaintenanceMode = "maintenance-mode"

// LeaveMaintenance gives the database back to Pacemaker. What the tool says is not all: it may have been done all the same.
func LeaveMaintenance(command cib.Command, observer *controller.Observer) Step {
	step := Run(command, nil)
	do := step.Do
	step.Do = func(ctx context.Context) error {
		err := do(ctx)
		if err == nil {
			return nil
		}
		if who, lookErr := observer.Cluster(context.WithoutCancel(ctx)); lookErr != nil || who.Cluster.Maintenance {
			return err
		}
		return nil
	}
	return step
}

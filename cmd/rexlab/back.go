package main

import "github.com/spf13/cobra"

func (a *app) addBack(*cobra.Command) {}

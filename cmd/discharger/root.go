package main

import (
	"github.com/discharger/discharger/cmd/discharger/backup"
	"github.com/discharger/discharger/cmd/discharger/command"
	"github.com/discharger/discharger/cmd/discharger/demo"
	"github.com/discharger/discharger/cmd/discharger/gatewayd"
	"github.com/discharger/discharger/cmd/discharger/keys"
	"github.com/discharger/discharger/cmd/discharger/policies"
	"github.com/discharger/discharger/cmd/discharger/serve"
	"github.com/discharger/discharger/cmd/discharger/sessions"
	"github.com/discharger/discharger/cmd/discharger/tokens"
)

// program returns the tree of commands.
func program() *command.Program {
	p := &command.Program{
		Name:    "discharger",
		Short:   "discharger issues short-lived discharges for sessions, and stops when they end.",
		Closing: "Each command has -h. To watch a session from login to logout: discharger demo",
		Version: "discharger " + version(),
		Groups: []command.Group{
			{Title: "Run", Commands: []command.Command{
				serve.Command(), gatewayd.Command(), demo.Command(),
			}},
			{Title: "Keys", Commands: []command.Command{
				keys.InitCommand(), keys.NewCommand(), keys.ListCommand(), keys.UseCommand(), keys.RetireCommand(), keys.ServiceCommand(),
			}},
			{Title: "Macaroons", Commands: []command.Command{
				tokens.MintCommand(), tokens.AttenuateCommand(), tokens.DischargeCommand(), tokens.RefreshCommand(), tokens.LogoutCommand(),
				tokens.VerifyCommand(), tokens.InspectCommand(),
			}},
			{Title: "Sessions", Commands: []command.Command{
				sessions.ListCommand(), sessions.RevokeCommand(), sessions.RevokeUserCommand(), sessions.RevokeDeviceCommand(),
				sessions.RevokeAllCommand(), sessions.MarksCommand(), sessions.WatchCommand(),
			}},
			{Title: "Policies", Commands: []command.Command{
				policies.CheckCommand(), policies.TestCommand(), policies.EvalCommand(), policies.DiffCommand(), policies.ShowCommand(),
				policies.FieldsCommand(), policies.SchemaCommand(), policies.SchemaCheckCommand(), policies.SchemaDocsCommand(),
			}},
			{Title: "Operation", Commands: []command.Command{
				configCheckCommand(), configExampleCommand(), backup.Command(), backup.RestoreCommand(), healthCommand(), versionCommand(),
			}},
		},
	}
	last := &p.Groups[len(p.Groups)-1]
	last.Commands = append(last.Commands, completionCommand(p), manCommand(p))
	return p
}

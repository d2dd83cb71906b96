package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

type configCmd struct {
	Print configPrintCmd `cmd:"" help:"Print the effective configuration as a configuration file, with the origin of each value."`
}

type configPrintCmd struct {
	serveFlags
	placeFlags
}

// setting is one effective value.
type setting struct {
	name, value, origin string
	help                string
	secret              bool
}

// Run prints what serve would run with. The output is a configuration file that
// gives the same values; secrets are left out of it.
func (c *configPrintCmd) Run(a *app, ctx *kong.Context) error {
	var all []setting
	for _, f := range ctx.Flags() {
		if a.settings.known[f.Name] == nil {
			continue
		}
		all = append(all, setting{
			name: f.Name, value: fmt.Sprint(ctx.FlagValue(f)), origin: a.settings.origin(f.Name),
			help: f.Help, secret: f.Tag.Has("secret"),
		})
	}
	model, origin := a.settings.model("")
	all = append(all, setting{name: modelKey, value: model, origin: origin, help: "Model that serve serves."})
	slices.SortFunc(all, func(a, b setting) int { return strings.Compare(a.name, b.name) })
	return printSettings(a.stdout, all)
}

// model returns the model to serve: the argument, DYN_MODEL, the file's, or the
// default one.
func (s *settings) model(arg string) (value, origin string) {
	if arg != "" {
		return arg, "argument"
	}
	value, origin, ok := s.lookup(modelKey)
	if !ok {
		value = defaultModel
	}
	return value, origin
}

func printSettings(w io.Writer, all []setting) error {
	wide := 0
	lines := make([]string, len(all))
	for i, s := range all {
		lines[i] = s.name + ": " + yamlScalar(s.value)
		if s.secret && s.value != "" {
			lines[i] = "# " + s.name + ": (set; not shown)"
		}
		wide = max(wide, min(len(lines[i]), 60))
	}
	for i, s := range all {
		if _, err := fmt.Fprintf(w, "%-*s  # %s\n", wide, lines[i], s.origin); err != nil {
			return err
		}
	}
	return nil
}

// yamlScalar writes a value so that YAML reads the same text back.
func yamlScalar(v string) string {
	if _, err := strconv.ParseInt(v, 10, 64); err == nil || v == "true" || v == "false" {
		return v
	}
	plain := v != "" && !slices.Contains([]string{"null", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(v)) &&
		strings.Trim(v, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./") == "" &&
		(v[0] >= 'a' && v[0] <= 'z' || v[0] >= 'A' && v[0] <= 'Z' || v[0] == '/')
	if plain {
		return v
	}
	return strconv.Quote(v)
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
)

// keyDelimiter joins the keys of nested sections in messages; no flag name
// contains it, so a section is always an unknown key.
const keyDelimiter = "."

// settings finds the values of flags that are not on the command line: first in
// the environment, then in the configuration file. It remembers where each came
// from.
type settings struct {
	env    func(string) (string, bool)
	known  map[string]*kong.Flag // by flag name, of all commands
	loaded bool
	path   string       // of the configuration file, empty for none
	file   *koanf.Koanf // nil for none
	envs   *koanf.Koanf // flag name -> value
	names  map[string]string
	given  map[string]bool // flags on the command line
}

// notSettings are flags that are no configuration: they act once.
var notSettings = []string{"help", "config"}

var _ kong.Resolver = (*settings)(nil)

// know collects the flags of every command.
func (s *settings) know(app *kong.Application) {
	s.known = map[string]*kong.Flag{}
	var visit func(n *kong.Node)
	visit = func(n *kong.Node) {
		for _, f := range n.Flags {
			if !oneOff(f) && !slices.Contains(notSettings, f.Name) {
				s.known[f.Name] = f
			}
		}
		for _, c := range n.Children {
			visit(c)
		}
	}
	visit(app.Node)
}

// oneOff says whether a flag belongs to one call and not to a configuration.
func oneOff(f *kong.Flag) bool { return f.Tag.Has("oneoff") }

// envNames returns the environment twins of a flag: DYN_ and its name, and the
// names other tools have made common.
func envNames(f *kong.Value) []string {
	names := []string{"DYN_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))}
	if also := f.Tag.Get("alsoenv"); also != "" {
		names = append(names, strings.Split(also, " ")...)
	}
	return names
}

// helpText is the help of a flag with its default and its environment twin.
func helpText(v *kong.Value) string {
	if v.Flag == nil || v.Flag.Name == "help" {
		return v.Help
	}
	help := strings.TrimSuffix(v.Help, ".")
	if v.Default != "" && v.Flag.PlaceHolder != "" {
		help += ". Default: " + v.Default
	}
	if v.Enum != "" {
		help += ". One of " + strings.ReplaceAll(v.Enum, ",", ", ")
	}
	if oneOff(v.Flag) {
		return help + "."
	}
	return help + " ($" + strings.Join(envNames(v), ", $") + ")."
}

// Validate implements kong.Resolver.
func (s *settings) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver: it is asked for the flags that are not on
// the command line.
func (s *settings) Resolve(ctx *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	if !s.loaded {
		if err := s.load(ctx); err != nil {
			return nil, usageError{error: err}
		}
	}
	if flag.Name == "config" {
		if s.path == "" {
			return nil, nil
		}
		return s.path, nil
	}
	if s.known[flag.Name] == nil || oneOff(flag) {
		return nil, nil
	}
	value, origin, ok := s.lookup(flag.Name)
	if !ok {
		return nil, nil
	}
	if err := s.try(flag, value); err != nil {
		return nil, usageError{error: fmt.Errorf("%s: --%s: %w", origin, flag.Name, err)}
	}
	return value, nil
}

// try parses a value on the side, so that its fault can name where it came from.
func (s *settings) try(flag *kong.Flag, value string) error {
	probe := reflectNew(flag)
	if err := flag.Parse(kong.ScanFromTokens(kong.Token{Type: kong.FlagValueToken, Value: value}), probe); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), flag.ShortSummary()+": ")) // it begins with the flag again
	}
	if flag.Enum != "" && !flag.EnumMap()[fmt.Sprint(probe.Interface())] {
		return fmt.Errorf("%q is not one of %s", value, strings.Join(strings.Split(flag.Enum, ","), ", "))
	}
	return nil
}

// lookup returns the value of a setting in the environment or the file.
func (s *settings) lookup(name string) (value, origin string, ok bool) {
	if s.envs != nil && s.envs.Exists(name) {
		return s.envs.String(name), "environment " + s.names[name], true
	}
	if s.file != nil && s.file.Exists(name) {
		return fmt.Sprint(s.file.Get(name)), "file " + s.path, true
	}
	return "", "default", false
}

// origin says where the effective value of a setting came from.
func (s *settings) origin(name string) string {
	if s.given[name] {
		return "flag"
	}
	_, origin, _ := s.lookup(name)
	return origin
}

// finish notes which flags were on the command line.
func (s *settings) finish(ctx *kong.Context) {
	s.given = map[string]bool{}
	for _, p := range ctx.Path {
		if p.Flag != nil && !p.Resolved {
			s.given[p.Flag.Name] = true
		}
	}
}

// load reads the environment and the configuration file.
func (s *settings) load(ctx *kong.Context) error {
	s.loaded = true
	if err := s.loadEnv(); err != nil {
		return err
	}
	path, err := s.configPath(ctx)
	if err != nil || path == "" {
		return err
	}
	s.path, s.file = path, koanf.New(keyDelimiter)
	if err := s.file.Load(file.Provider(path), yaml.Parser()); err != nil {
		return fmt.Errorf("--config: read %s: %w", path, err)
	}
	var faults []error
	for _, key := range s.file.Keys() {
		if s.known[key] == nil && key != modelKey {
			faults = append(faults, fmt.Errorf("--config: %s: unknown key %q%s", path, key, s.similar(key)))
			continue
		}
		switch s.file.Get(key).(type) {
		case map[string]any, []any:
			faults = append(faults, fmt.Errorf("--config: %s: key %q wants a single value, not a list or section", path, key))
		case nil:
			s.file.Delete(key) // an empty value is as good as none
		}
	}
	return errors.Join(faults...)
}

// loadEnv collects the environment twins. An empty variable is as good as none.
func (s *settings) loadEnv() error {
	values := map[string]any{}
	s.names = map[string]string{}
	add := func(name string, twins []string) {
		for _, env := range slices.Backward(twins) {
			if v, ok := s.env(env); ok && v != "" {
				values[name], s.names[name] = v, env
			}
		}
	}
	for name, f := range s.known {
		add(name, envNames(f.Value))
	}
	add(modelKey, []string{"DYN_MODEL"})
	s.envs = koanf.New(keyDelimiter)
	if err := s.envs.Load(confmap.Provider(values, ""), nil); err != nil {
		return fmt.Errorf("read the environment: %w", err)
	}
	return nil
}

// configPath returns the file to read: --config, DYN_CONFIG, or the user's own
// if there is one.
func (s *settings) configPath(ctx *kong.Context) (string, error) {
	for _, p := range ctx.Path {
		if p.Flag != nil && p.Flag.Name == "config" {
			return fmt.Sprint(ctx.FlagValue(p.Flag)), nil
		}
	}
	if path, ok := s.env("DYN_CONFIG"); ok && path != "" {
		return path, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", nil // no home, no file
	}
	path := filepath.Join(dir, "dynamo", "config.yaml")
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return "", nil
		}
		return "", fmt.Errorf("look for the configuration file: %w", err)
	}
	return path, nil
}

// similar offers the known key that was probably meant.
func (s *settings) similar(key string) string {
	plain := func(k string) string {
		return strings.ToLower(strings.NewReplacer("-", "", "_", "", keyDelimiter, "").Replace(k))
	}
	for name := range s.known {
		if plain(name) == plain(key) {
			return fmt.Sprintf("; did you mean %q?", name)
		}
	}
	return ""
}

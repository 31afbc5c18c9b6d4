// Package config is the agent's configuration: typed, with defaults, and
// strict, so that a typo is an error and never turns a control off.
package config

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/sdk/plugin"
	"github.com/cavra/cavra/sdk/reach"
	"github.com/cavra/cavra/sdk/settings"
)

// File is the configuration's name in an agent's folder.
const File = "agent.yaml"

// Config is everything that an installation decides.
type Config struct {
	// Scopes are what the agent looks after.
	Scopes []Scope `yaml:"scopes"`
	// Interval is the time from the start of a round to the next one's.
	Interval Duration `yaml:"interval"`
	// Heartbeat is the time between two signs of life.
	Heartbeat Duration `yaml:"heartbeat"`
	// Inventory is how often what stands is told even when nothing changed.
	Inventory Duration `yaml:"inventory"`
	// CheckIn is the time between two calls to the aggregator.
	CheckIn Duration `yaml:"check_in"`
	// Jobs is how many artifacts are inspected at a time.
	Jobs int `yaml:"jobs"`
	// Privacy is what may leave: strict keys names, names sends them in the clear,
	// full-local sends signs of life alone.
	Privacy predicate.Privacy `yaml:"privacy"`
	// KeyedBelow is the size, in bytes, below which files are named by a keyed
	// digest where they leave; 0 names all by their plain digests.
	KeyedBelow int64 `yaml:"keyed_below"`
	Spool      Spool `yaml:"spool"`
	Key        Key   `yaml:"key"`
	// Sandbox is what is put on around scanners and connectors: require, best-effort or off-unsafe.
	Sandbox plugin.Sandbox `yaml:"sandbox"`
	// RemoteConfig is whether the aggregator may change how often the agent looks,
	// speaks and calls, and how little of the machine it takes: off or on.
	RemoteConfig Remote `yaml:"remote_config"`
	// PluginDir is where the plugins are; empty looks beside the program.
	PluginDir string `yaml:"plugin_dir"`
}

// Remote is what an installation lets its aggregator set.
type Remote string

// Nothing, which is the default, or what package remote takes.
const (
	RemoteOff Remote = "off"
	RemoteOn  Remote = "on"
)

// Validate reports whether r is one of the two.
func (r Remote) Validate() error {
	if r != RemoteOff && r != RemoteOn {
		return fmt.Errorf("remote_config: %q: want off or on", r)
	}
	return nil
}

// Scope is a registry, from a root on.
type Scope struct {
	// Connector is the registry's kind; "fs" is the machine's own files.
	Connector string `yaml:"connector"`
	Root      string `yaml:"root"`
	// Egress are the places that the connector may reach: host:port, and networks
	// inside of which those hosts may be.
	Egress []string `yaml:"egress,omitempty"`
	// Credentials are the files of what the connector is handed, by name.
	Credentials map[string]string `yaml:"credentials,omitempty"`
	// Authority is a file of certificates that the connector may trust besides the
	// machine's.
	Authority string `yaml:"authority,omitempty"`
}

// Remote reports whether the scope's connector reaches something over the network,
// or is handed something: it then has a process of its own.
func (s Scope) Remote() bool {
	return len(s.Egress) > 0 || len(s.Credentials) > 0 || s.Authority != ""
}

// LogValue shows no credential, nor where one is.
func (s Scope) LogValue() slog.Value {
	return slog.GroupValue(slog.String("connector", s.Connector), slog.String("root", s.Root), slog.Any("egress", s.Egress), slog.Int("credentials", len(s.Credentials)))
}

// validate reports what cannot work of the scope that is called what.
func (s Scope) validate(what string) error {
	var errs []error
	if err := predicate.ValidateID(s.Connector); err != nil {
		errs = append(errs, fmt.Errorf("%s.connector: %w", what, err))
	}
	if s.Root == "" || s.Connector == "fs" && !filepath.IsAbs(s.Root) {
		errs = append(errs, fmt.Errorf("%s.root: %q: want an absolute path", what, s.Root))
	}
	if s.Connector == "fs" && s.Remote() {
		errs = append(errs, fmt.Errorf("%s: the connector of files reaches no network and needs no credentials", what))
	}
	list, err := reach.Parse(s.Egress)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("%s.egress: %w", what, err))
	case list.Len() == 0 && s.Remote():
		errs = append(errs, fmt.Errorf("%s.egress: no place that the connector may reach: name the registry, as registry.example.com:443", what))
	}
	if len(s.Credentials) > plugin.MaxCredentials {
		errs = append(errs, fmt.Errorf("%s.credentials: %d, at most %d", what, len(s.Credentials), plugin.MaxCredentials))
	}
	for _, name := range slices.Sorted(maps.Keys(s.Credentials)) {
		if err := predicate.ValidateID(name); err != nil {
			errs = append(errs, fmt.Errorf("%s.credentials: %w", what, err))
		}
		if !filepath.IsAbs(s.Credentials[name]) {
			// It may be the secret itself, written in the wrong place: it is not shown.
			errs = append(errs, fmt.Errorf("%s.credentials.%s: want the absolute path of a file that holds it", what, name))
		}
	}
	if s.Authority != "" && !filepath.IsAbs(s.Authority) {
		errs = append(errs, fmt.Errorf("%s.authority: %q: want the absolute path of a file of certificates", what, s.Authority))
	}
	return errors.Join(errs...)
}

// Spool bounds what waits for the broker.
type Spool struct {
	MaxBytes int64 `yaml:"max_bytes"`
	// SentBytes bounds the copy of what was sent, which `cavra agent sent` shows;
	// 0 keeps none.
	SentBytes int64 `yaml:"sent_bytes"`
	// KeptBytes bounds what stays at the level full-local, which `cavra agent kept`
	// shows; the oldest goes first.
	KeptBytes int64 `yaml:"kept_bytes"`
}

// Key is about the key that the agent signs with.
type Key struct {
	// MaxAge is when another one follows.
	MaxAge Duration `yaml:"max_age"`
}

// Life is for how long a key that is held elsewhere certifies the agent's: twice
// the time after which another follows, so that the aggregator may be away
// meanwhile.
func (k Key) Life() time.Duration { return min(2*time.Duration(k.MaxAge), predicate.MaxKeyLife) }

// Duration is a time span, written as in Go: "90s", "5m", "24h".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no time span: write it as 90s, 5m or 24h", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// The bounds.
const (
	// DefaultKeyedBelow covers settings, credentials and notes, whose content
	// somebody could guess, and no weights whose digest is worth comparing.
	DefaultKeyedBelow = 4 << 10

	maxKeyedBelow = 1 << 40
	minSpool      = 16 << 20
	maxJobs       = 256
	minInterval   = Duration(time.Second)
	minKeyAge     = Duration(time.Minute)
)

// Default returns the settings of an installation that says nothing.
func Default() Config {
	return Config{
		Scopes:   []Scope{},
		Interval: Duration(5 * time.Minute), Heartbeat: Duration(5 * time.Minute), Inventory: Duration(24 * time.Hour),
		CheckIn: Duration(time.Minute),
		Jobs:    runtime.NumCPU(), Privacy: predicate.Strict, KeyedBelow: DefaultKeyedBelow, Sandbox: plugin.SandboxRequire, RemoteConfig: RemoteOff, Spool: Spool{MaxBytes: 1 << 30, SentBytes: 256 << 20, KeptBytes: 1 << 30},
		Key: Key{MaxAge: Duration(30 * 24 * time.Hour)},
	}
}

// Load reads the configuration of an agent's folder.
func Load(dir string) (Config, error) {
	c := Default()
	name := filepath.Join(dir, File)
	if err := settings.ReadFile(name, &c); err != nil {
		return Config{}, err
	}
	if err := c.Validate(); err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", name, err)
	}
	return c, nil
}

// Validate reports every setting that cannot work.
func (c Config) Validate() error {
	var errs []error
	if len(c.Scopes) == 0 {
		errs = append(errs, errors.New("scopes: name at least one, as {connector: fs, root: /models}"))
	}
	for i, s := range c.Scopes {
		if err := s.validate(fmt.Sprintf("scopes[%d]", i)); err != nil {
			errs = append(errs, err)
		}
		for j, other := range c.Scopes[:i] {
			if s.Connector == other.Connector && s.Root == other.Root && (s.Remote() || other.Remote()) {
				errs = append(errs, fmt.Errorf("scopes[%d]: the same connector and root as scopes[%d]", i, j))
			}
		}
	}
	for name, d := range map[string]Duration{"interval": c.Interval, "heartbeat": c.Heartbeat, "inventory": c.Inventory, "check_in": c.CheckIn} {
		if d < minInterval {
			errs = append(errs, fmt.Errorf("%s: %s is shorter than a second", name, time.Duration(d)))
		}
	}
	if c.Jobs < 1 || c.Jobs > maxJobs {
		errs = append(errs, fmt.Errorf("jobs: %d is not within 1 and %d", c.Jobs, maxJobs))
	}
	if err := c.Privacy.Validate(); err != nil {
		errs = append(errs, err)
	}
	if err := c.Sandbox.Validate(); err != nil {
		errs = append(errs, err)
	}
	if err := c.RemoteConfig.Validate(); err != nil {
		errs = append(errs, err)
	}
	if c.Spool.MaxBytes < minSpool {
		errs = append(errs, fmt.Errorf("spool.max_bytes: %d is less than %d", c.Spool.MaxBytes, minSpool))
	}
	if c.Key.MaxAge < minKeyAge || time.Duration(c.Key.MaxAge) > predicate.MaxKeyLife {
		errs = append(errs, fmt.Errorf("key.max_age: %s is not within %s and %s", time.Duration(c.Key.MaxAge), time.Duration(minKeyAge), predicate.MaxKeyLife))
	}
	if c.KeyedBelow < 0 || c.KeyedBelow > maxKeyedBelow {
		errs = append(errs, fmt.Errorf("keyed_below: %d is not within 0 and %d", c.KeyedBelow, int64(maxKeyedBelow)))
	}
	if c.Spool.KeptBytes < minSpool {
		errs = append(errs, fmt.Errorf("spool.kept_bytes: %d is less than %d", c.Spool.KeptBytes, minSpool))
	}
	if c.Spool.SentBytes < 0 {
		errs = append(errs, fmt.Errorf("spool.sent_bytes: %d is negative; 0 keeps no copy", c.Spool.SentBytes))
	}
	return errors.Join(errs...)
}

// LogValue shows the settings; there is no secret among them.
func (c Config) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("scopes", len(c.Scopes)), slog.String("privacy", string(c.Privacy)),
		slog.Duration("interval", time.Duration(c.Interval)), slog.Int("jobs", c.Jobs), slog.String("sandbox", string(c.Sandbox)))
}

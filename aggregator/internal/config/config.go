// Package config is the aggregator's configuration: typed, with defaults, and
// strict, so that a typo is an error and never turns a control off. Secrets are
// named by file and never stand in it.
package config

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/cavra/cavra/aggregator/internal/awssts"
	"github.com/cavra/cavra/aggregator/internal/ca"
	"github.com/cavra/cavra/aggregator/internal/clickhouse"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/ingest/kafka"
	"github.com/cavra/cavra/schemas/topic"
	"github.com/cavra/cavra/sdk/logproof"
	"github.com/cavra/cavra/sdk/settings"
)

// Config is everything that an installation decides.
type Config struct {
	// Listen is the host:port of the API and the page. Without TLS it must be
	// a loopback address.
	Listen string `yaml:"listen"`
	TLS    TLS    `yaml:"tls"`
	// RetentionDays is how long what arrived is kept.
	RetentionDays int `yaml:"retention_days"`
	// Embedded, if it has a folder, runs in this program whichever of Kafka,
	// ClickHouse and the control store the sections below do not name.
	Embedded   Embedded   `yaml:"embedded"`
	Kafka      Kafka      `yaml:"kafka"`
	ClickHouse ClickHouse `yaml:"clickhouse"`
	Control    Control    `yaml:"control"`
	Evidence   Evidence   `yaml:"evidence"`
	Keys       Keys       `yaml:"keys"`
	Agents     Agents     `yaml:"agents"`
}

// Keys is about agents' keys.
type Keys struct {
	// OverlapDays is for how long what an agent's former key signed is still taken
	// in.
	OverlapDays int `yaml:"overlap_days"`
}

// maxOverlapDays is ten years.
const maxOverlapDays = 3650

// Overlap is for how long what an agent's former key signed is still taken in.
func (k Keys) Overlap() time.Duration { return time.Duration(k.OverlapDays) * 24 * time.Hour }

// Agents is the service that agents call, over mutual TLS with certificates of
// the aggregator's own authority.
type Agents struct {
	// Listen is its host:port.
	Listen string `yaml:"listen"`
	// Address is the host:port that agents are given; empty for Listen.
	Address string `yaml:"address"`
	// TrustDomain is the first part of the agents' SPIFFE ids.
	TrustDomain string `yaml:"trust_domain"`
	// CACertificate and CAKey are the authority's PEM files. Empty is one that is
	// made in embedded.dir, and no service where there is none.
	CACertificate string `yaml:"ca_certificate"`
	CAKey         string `yaml:"ca_key"`
	// ConfigKey is the PEM file of the Ed25519 key that signs what is set on
	// agents. Empty is one that is made in embedded.dir, and none where there is
	// none: agents are then configured by their own files alone.
	ConfigKey string `yaml:"config_key"`
	// AWSSTSEndpoint is a URL in place of AWS's own, for agents that join by their
	// identity at AWS.
	AWSSTSEndpoint string `yaml:"aws_sts_endpoint"`
	// CertificateLife is how long an agent's certificate is good.
	CertificateLife Duration `yaml:"certificate_life"`
}

// Duration is a time span, written as in Go: "90m", "24h".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is no time span: write it as 90m or 24h", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// Evidence is the transparency log.
type Evidence struct {
	// Dir is its folder, which one aggregator has to itself; empty is a folder in
	// embedded.dir, and no log where there is none.
	Dir string `yaml:"dir"`
	// Origin names the log in its checkpoints, as a URL without a scheme.
	Origin string `yaml:"origin"`
	// Witnesses have to sign a checkpoint before it is published: as many of them as
	// WitnessesRequired says, and all of them where that is 0.
	Witnesses         []Witness `yaml:"witnesses"`
	WitnessesRequired int       `yaml:"witnesses_required"`
}

// Witness is one that follows the log from elsewhere.
type Witness struct {
	// Key is its public key, as cavra witness writes it.
	Key string `yaml:"key"`
	URL string `yaml:"url"`
}

func (e Evidence) validate() error {
	var errs []error
	if !origin.MatchString(e.Origin) {
		errs = append(errs, fmt.Errorf("evidence.origin: %q: want letters, digits, dots, hyphens and slashes, as in log.example.com/cavra", e.Origin))
	}
	seen := map[string]bool{}
	for i, w := range e.Witnesses {
		if _, err := logproof.ParseWitness(w.Key); err != nil {
			errs = append(errs, fmt.Errorf("evidence.witnesses[%d].key: %w", i, err))
		}
		u, err := url.Parse(w.URL)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("evidence.witnesses[%d].url: %q: want https://host:port", i, w.URL))
		}
		if seen[w.Key] || seen[w.URL] {
			errs = append(errs, fmt.Errorf("evidence.witnesses[%d]: it is named twice", i))
		}
		seen[w.Key], seen[w.URL] = true, true
	}
	if e.WitnessesRequired < 0 || e.WitnessesRequired > len(e.Witnesses) {
		errs = append(errs, fmt.Errorf("evidence.witnesses_required: %d, and there are %d witnesses", e.WitnessesRequired, len(e.Witnesses)))
	}
	return errors.Join(errs...)
}

// TLS names a certificate and its key, both PEM files.
type TLS struct {
	Certificate string `yaml:"certificate"`
	Key         string `yaml:"key"`
}

// Embedded is the installation without services.
type Embedded struct {
	// Dir holds everything.
	Dir string `yaml:"dir"`
	// KafkaPort is the broker's port on 127.0.0.1; 0 takes a free one.
	KafkaPort int `yaml:"kafka_port"`
	// TLS makes the broker speak TLS, with a certificate of the agents' authority.
	TLS bool `yaml:"tls"`
	// EngineLibrary is the path of libchdb.so; empty looks beside the program.
	EngineLibrary string `yaml:"engine_library"`
	// MaxBytes bounds the folder. Past it the aggregator takes in nothing more
	// until there is room: it never deletes evidence to make some.
	MaxBytes int64 `yaml:"max_bytes"`
}

// Kafka is a cluster.
type Kafka struct {
	Brokers []string `yaml:"brokers"`
	// AgentBrokers are the addresses that agents are given; empty for Brokers.
	AgentBrokers []string `yaml:"agent_brokers"`
	Group        string   `yaml:"group"`
	Mechanism    string   `yaml:"mechanism"`
	Username     string   `yaml:"username"`
	PasswordFile string   `yaml:"password_file"`
	TLS          bool     `yaml:"tls"`
	// CAFile is the brokers' certificate authority; empty for the system's.
	CAFile string `yaml:"ca_file"`
	// Partitions and Replication are for a topic that does not exist yet.
	Partitions  int `yaml:"partitions"`
	Replication int `yaml:"replication"`
}

// ClickHouse is a server, or a cluster of one shard.
type ClickHouse struct {
	// Protocol is http or native.
	Protocol     string   `yaml:"protocol"`
	Addresses    []string `yaml:"addresses"`
	Database     string   `yaml:"database"`
	Username     string   `yaml:"username"`
	PasswordFile string   `yaml:"password_file"`
	TLS          bool     `yaml:"tls"`
	CAFile       string   `yaml:"ca_file"`
	Cluster      string   `yaml:"cluster"`
}

// Control is the transactional store: exactly one of the two is set.
type Control struct {
	SQLite string `yaml:"sqlite"`
	// PostgreSQLFile is a file that holds the connection string.
	PostgreSQLFile string `yaml:"postgresql_file"`
}

// The defaults that have names.
const (
	DefaultListen       = "127.0.0.1:8480"
	DefaultAgentsListen = "127.0.0.1:8481"
	DefaultKafkaPort    = 9480
)

// Default returns the settings of an installation that says nothing.
func Default() Config {
	return Config{
		Listen:        DefaultListen,
		RetentionDays: 400,
		Embedded:      Embedded{KafkaPort: DefaultKafkaPort, MaxBytes: 64 << 30},
		Kafka:         Kafka{Group: "cavra-aggregator", Mechanism: string(kafka.ScramSHA256), Partitions: topic.Partitions, Replication: -1},
		ClickHouse:    ClickHouse{Protocol: string(clickhouse.HTTP), Database: "cavra", Username: "cavra"},
		Evidence:      Evidence{Origin: "cavra.local/log"},
		Keys:          Keys{OverlapDays: int(control.MinOverlap / (24 * time.Hour))},
		Agents:        Agents{Listen: DefaultAgentsListen, TrustDomain: "cavra.local", CertificateLife: Duration(24 * time.Hour)},
	}
}

// Load reads a file over the defaults and validates the result.
func Load(name string) (Config, error) {
	c := Default()
	if err := settings.ReadFile(name, &c); err != nil {
		return Config{}, err
	}
	if err := c.Validate(); err != nil {
		return Config{}, fmt.Errorf("configuration %s: %w", name, err)
	}
	return c, nil
}

// Validate reports every setting that cannot work, and what to set instead.
func (c Config) Validate() error {
	errs := []error{c.validateListen(), c.Agents.validate()}
	// ClickHouse's TTL counts in 32-bit seconds, which end in 2106.
	if c.RetentionDays < 1 || c.RetentionDays > clickhouse.MaxRetentionDays {
		errs = append(errs, fmt.Errorf("retention_days: %d is not within 1 and %d", c.RetentionDays, clickhouse.MaxRetentionDays))
	}
	if c.Embedded.MaxBytes < 1<<30 {
		errs = append(errs, fmt.Errorf("embedded.max_bytes: %d is less than 1 GiB", c.Embedded.MaxBytes))
	}
	if c.Embedded.KafkaPort < 0 || c.Embedded.KafkaPort > 65535 {
		errs = append(errs, fmt.Errorf("embedded.kafka_port: %d is no port", c.Embedded.KafkaPort))
	}
	if c.Embedded.TLS && !c.EmbeddedKafka() {
		errs = append(errs, errors.New("embedded.tls: it is for the broker in this program, and kafka.brokers names others: set kafka.tls"))
	}
	if c.Control.SQLite != "" && c.Control.PostgreSQLFile != "" {
		errs = append(errs, errors.New("control: set either sqlite or postgresql_file, not both"))
	}
	if c.Keys.Overlap() < control.MinOverlap || c.Keys.OverlapDays > maxOverlapDays {
		errs = append(errs, fmt.Errorf("keys.overlap_days: %d is not within %d and %d", c.Keys.OverlapDays, control.MinOverlap/(24*time.Hour), maxOverlapDays))
	}
	if err := c.Evidence.validate(); err != nil {
		errs = append(errs, err)
	}
	if c.Embedded.Dir == "" && (c.EmbeddedKafka() || c.EmbeddedClickHouse() || c.EmbeddedControl()) {
		errs = append(errs, errors.New("set kafka.brokers, clickhouse.addresses and one of control.sqlite and control.postgresql_file, or embedded.dir to run what is missing in this program"))
	}
	return errors.Join(errs...)
}

// origin is what names a log: nothing that a note's first line could not hold.
var origin = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9./_-]{0,127}$`)

// EvidenceDir is where the transparency log is; empty for none.
func (c Config) EvidenceDir() string {
	if c.Evidence.Dir == "" && c.Embedded.Dir != "" {
		return filepath.Join(c.Embedded.Dir, "evidence")
	}
	return c.Evidence.Dir
}

// ServesAgents says that there is a service for agents to call.
func (c Config) ServesAgents() bool { return c.Agents.CACertificate != "" || c.Embedded.Dir != "" }

// Authority is the agents' certificate authority.
func (c Config) Authority() ca.Config {
	out := ca.Config{Certificate: c.Agents.CACertificate, Key: c.Agents.CAKey, TrustDomain: c.Agents.TrustDomain, Life: time.Duration(c.Agents.CertificateLife)}
	if c.Embedded.Dir != "" {
		out.Dir = filepath.Join(c.Embedded.Dir, "ca")
	}
	return out
}

// ConfigKeyFile is the key that signs what is set on agents, and whether it is
// made when it is missing; empty for none.
func (c Config) ConfigKeyFile() (file string, create bool) {
	if c.Agents.ConfigKey == "" && c.Embedded.Dir != "" {
		return filepath.Join(c.Embedded.Dir, "ca", "config.key"), true
	}
	return c.Agents.ConfigKey, false
}

// AWS asks AWS who signed a request.
func (a Agents) AWS() (*awssts.Client, error) {
	return awssts.New(awssts.Config{Endpoint: a.AWSSTSEndpoint})
}

func (a Agents) validate() error {
	var errs []error
	host, _, err := net.SplitHostPort(a.Listen)
	if err != nil {
		errs = append(errs, fmt.Errorf("agents.listen: %q: want host:port", a.Listen))
	}
	if ip := net.ParseIP(host); a.Address == "" && err == nil && (host == "" || ip != nil && ip.IsUnspecified()) {
		errs = append(errs, fmt.Errorf("agents.address: agents cannot call %s: set the host:port that they reach it by", a.Listen))
	}
	if _, _, err := net.SplitHostPort(a.Address); a.Address != "" && err != nil {
		errs = append(errs, fmt.Errorf("agents.address: %q: want host:port", a.Address))
	}
	if err := ca.ValidateTrustDomain(a.TrustDomain); err != nil {
		errs = append(errs, fmt.Errorf("agents.trust_domain: %w", err))
	}
	if (a.CACertificate == "") != (a.CAKey == "") {
		errs = append(errs, errors.New("agents: set both ca_certificate and ca_key"))
	}
	if _, err := a.AWS(); err != nil {
		errs = append(errs, fmt.Errorf("agents.aws_sts_endpoint: %w", err))
	}
	if l := time.Duration(a.CertificateLife); l < ca.MinLife || l > ca.MaxLife {
		errs = append(errs, fmt.Errorf("agents.certificate_life: %s is not within %s and %s", l, ca.MinLife, ca.MaxLife))
	}
	return errors.Join(errs...)
}

// EmbeddedKafka says that the broker runs in this program.
func (c Config) EmbeddedKafka() bool { return len(c.Kafka.Brokers) == 0 }

// EmbeddedClickHouse says that the engine runs beside this program.
func (c Config) EmbeddedClickHouse() bool { return len(c.ClickHouse.Addresses) == 0 }

// EmbeddedControl says that the control store is a file of the embedded folder.
func (c Config) EmbeddedControl() bool {
	return c.Control.SQLite == "" && c.Control.PostgreSQLFile == ""
}

func (c Config) validateListen() error {
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return fmt.Errorf("listen: %q: want host:port", c.Listen)
	}
	if (c.TLS.Certificate == "") != (c.TLS.Key == "") {
		return errors.New("tls: set both certificate and key")
	}
	if c.TLS.Certificate == "" && !loopback(host) {
		return fmt.Errorf("listen: %q is not a loopback address, and without tls.certificate and tls.key tokens would travel in the clear", c.Listen)
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// LogValue shows where things are and no secret; there is none in it.
func (c Config) LogValue() slog.Value {
	if c.Embedded.Dir != "" {
		return slog.GroupValue(slog.String("listen", c.Listen), slog.String("embedded", c.Embedded.Dir))
	}
	return slog.GroupValue(slog.String("listen", c.Listen), slog.Any("kafka", c.Kafka.Brokers), slog.Any("clickhouse", c.ClickHouse.Addresses))
}

// Secret reads a file that holds one secret, without the line's end.
func Secret(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	const most = 8 << 10
	if len(b) > most {
		return "", fmt.Errorf("read secret %s: larger than %d bytes", name, most)
	}
	return strings.TrimRight(string(b), "\r\n"), nil
}

// clientTLS is the configuration of connections to a service, nil without TLS.
func clientTLS(use bool, caFile string) (*tls.Config, error) {
	if !use {
		return nil, nil //nolint:nilnil // no TLS is what was asked for
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(caFile)
	if err != nil {
		return nil, fmt.Errorf("read certificate authority: %w", err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read certificate authority %s: no certificate in it", caFile)
	}
	return cfg, nil
}

// KafkaClient is the cluster's connection for the ingest stage.
func (c Config) KafkaClient(log *slog.Logger) (kafka.Config, error) {
	k := kafka.Default()
	password, err := Secret(c.Kafka.PasswordFile)
	if err != nil {
		return kafka.Config{}, fmt.Errorf("kafka.password_file: %w", err)
	}
	if k.TLS, err = clientTLS(c.Kafka.TLS, c.Kafka.CAFile); err != nil {
		return kafka.Config{}, fmt.Errorf("kafka.ca_file: %w", err)
	}
	k.Brokers, k.GroupID, k.Topic, k.Log = c.Kafka.Brokers, c.Kafka.Group, topic.Statements, log
	k.SASL = kafka.SASL{Mechanism: kafka.Mechanism(c.Kafka.Mechanism), Username: c.Kafka.Username, Password: password}
	return k, k.Validate()
}

// ClickHouseClient is the server's connection.
func (c Config) ClickHouseClient() (clickhouse.Connection, error) {
	password, err := Secret(c.ClickHouse.PasswordFile)
	if err != nil {
		return clickhouse.Connection{}, fmt.Errorf("clickhouse.password_file: %w", err)
	}
	t, err := clientTLS(c.ClickHouse.TLS, c.ClickHouse.CAFile)
	if err != nil {
		return clickhouse.Connection{}, fmt.Errorf("clickhouse.ca_file: %w", err)
	}
	conn := clickhouse.Connection{
		Protocol: clickhouse.Protocol(c.ClickHouse.Protocol), Addresses: c.ClickHouse.Addresses, Database: c.ClickHouse.Database,
		Username: c.ClickHouse.Username, Password: password, TLS: t, DialTimeout: 10 * time.Second,
	}
	return conn, conn.Validate()
}

// Package aggregator is the whole aggregator. It reads top-down as the way of a
// message through it: the broker, ingest, admission, the database, the documents
// that people see.
//
// It guarantees that whatever it is configured with (embedded parts or
// clusters) has the same code above the connection, and that it stops whole: no
// part of it outlives Run.
package aggregator

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cavra/cavra/aggregator/internal/access"
	"github.com/cavra/cavra/aggregator/internal/admit"
	"github.com/cavra/cavra/aggregator/internal/ca"
	"github.com/cavra/cavra/aggregator/internal/clickhouse"
	"github.com/cavra/cavra/aggregator/internal/config"
	"github.com/cavra/cavra/aggregator/internal/control"
	"github.com/cavra/cavra/aggregator/internal/enrol"
	"github.com/cavra/cavra/aggregator/internal/evidence"
	"github.com/cavra/cavra/aggregator/internal/ingest"
	"github.com/cavra/cavra/aggregator/internal/ingest/kafka"
	"github.com/cavra/cavra/aggregator/internal/serve"
	"github.com/cavra/cavra/schemas/predicate"
	"github.com/cavra/cavra/schemas/topic"
	"github.com/cavra/cavra/sdk/clock"
	"github.com/cavra/cavra/sdk/finding"
)

// Config is what an Aggregator runs with.
type Config struct {
	Settings config.Config
	Version  string
	Log      *slog.Logger
}

// Aggregator is a running aggregator's parts.
type Aggregator struct {
	cfg      Config
	embedded embedded

	store    *control.Store
	db       *clickhouse.DB
	rows     *bound
	admin    *kafka.Admin
	consumer *kafka.Consumer
	evidence *evidence.Ledger
	ingest   *ingest.Ingest
	gate     *access.Gate
	agents   *agents
	// authority is nil where there is no service for agents.
	authority *ca.Authority
	enrol     *enrol.Service
	service   *serve.Service
}

// New checks the configuration. It touches neither disk nor network.
func New(cfg Config) (*Aggregator, error) {
	if err := cfg.Settings.Validate(); err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		return nil, errors.New("aggregator: a logger is required")
	}
	return &Aggregator{cfg: cfg}, nil
}

// Run runs until ctx ends, and returns nil then. started, if not nil, is called
// with the address once people and agents can come.
func (a *Aggregator) Run(ctx context.Context, started func(Address)) (err error) {
	if dir := a.cfg.Settings.Embedded.Dir; dir != "" {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the folder: %w", err)
		}
		unlock, err := lockFolder(dir)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, unlock()) }()
	}
	// The services outlive what uses them.
	services, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, services := errgroup.WithContext(services)
	if a.cfg.Settings.ServesAgents() {
		if a.authority, err = ca.Open(a.cfg.Settings.Authority()); err != nil {
			return err
		}
	}
	if err := a.embedded.start(services, group, a.cfg, a.authority); err != nil {
		stop()
		return errors.Join(err, group.Wait())
	}
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	// A service that ends takes the work with it.
	context.AfterFunc(services, cancel)
	err = a.open(work)
	if err == nil {
		err = a.work(work, started)
	}
	err = errors.Join(err, a.close())
	stop()
	if ended := group.Wait(); ended != nil && !errors.Is(ended, context.Canceled) {
		err = errors.Join(ended, err)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// open connects the parts, from the stores to the documents.
func (a *Aggregator) open(ctx context.Context) error {
	if err := a.openStores(ctx); err != nil {
		return err
	}
	if err := a.openKafka(ctx); err != nil {
		return err
	}
	if err := a.openIngest(ctx); err != nil {
		return err
	}
	return a.openDocuments(ctx)
}

func (a *Aggregator) openStores(ctx context.Context) error {
	set := a.cfg.Settings
	var err error
	if a.store, err = OpenControl(ctx, set); err != nil {
		return err
	}
	rows := clickhouse.Default()
	rows.RetentionDays, rows.Cluster = set.RetentionDays, set.ClickHouse.Cluster
	if set.EmbeddedClickHouse() {
		conn, err := a.embedded.engine.Open()
		if err != nil {
			return err
		}
		a.db, err = clickhouse.New(conn, rows)
		if err != nil {
			return err
		}
	} else {
		conn, err := set.ClickHouseClient()
		if err != nil {
			return err
		}
		if a.db, err = clickhouse.Open(conn, rows); err != nil {
			return err
		}
	}
	return a.db.Migrate(ctx)
}

func (a *Aggregator) openKafka(ctx context.Context) error {
	client, err := a.kafka()
	if err != nil {
		return err
	}
	if a.admin, err = kafka.NewAdmin(client); err != nil {
		return err
	}
	spec := kafka.StatementTopic(topic.Statements, a.cfg.Settings.Kafka.Partitions, topic.MaxMessage+topicOverhead)
	spec.ReplicationFactor = a.cfg.Settings.Kafka.Replication
	if err := a.admin.EnsureTopics(ctx, []kafka.TopicSpec{spec}); err != nil {
		return fmt.Errorf("prepare the topic: %w", err)
	}
	a.consumer, err = kafka.NewConsumer(client)
	return err
}

// topicOverhead is what a record's key, headers and framing take beside its
// value.
const topicOverhead = 16 << 10

// kafka is the way to the cluster, the embedded broker's or the configured one.
func (a *Aggregator) kafka() (kafka.Config, error) {
	if !a.cfg.Settings.EmbeddedKafka() {
		return a.cfg.Settings.KafkaClient(a.cfg.Log)
	}
	c := kafka.Default()
	c.Brokers, c.Topic, c.GroupID, c.Log = []string{a.embedded.broker.Addr()}, topic.Statements, a.cfg.Settings.Kafka.Group, a.cfg.Log
	c.ClientID = "cavra-aggregator"
	// One member alone: a killed one's place is free soon.
	c.SessionTimeout, c.RebalanceTimeout = embeddedSession, embeddedSession
	c.SASL = kafka.SASL{Mechanism: kafka.ScramSHA256, Username: superuser, Password: a.embedded.password}
	if a.cfg.Settings.Embedded.TLS {
		c.TLS = &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: a.authority.Pool()}
	}
	return c, c.Validate()
}

func (a *Aggregator) openIngest(ctx context.Context) error {
	admitter, err := admit.New(admit.Config{Keys: a.store, Chains: a.store, Archive: a.db})
	if err != nil {
		return err
	}
	owner, err := secret(8)
	if err != nil {
		return err
	}
	a.rows = &bound{rows: a.db}
	c := ingest.Default()
	c.Topic, c.Owner, c.Plans, c.Admitter, c.Rows, c.Offsets = topic.Statements, owner, a.store, admitter, a.rows, a.consumer
	c.Retryable, c.Log = retryable, a.cfg.Log
	if dir := a.cfg.Settings.EvidenceDir(); dir != "" {
		set := a.cfg.Settings.Evidence
		ec := evidence.Config{Dir: dir, Origin: set.Origin, Required: set.WitnessesRequired, Log: a.cfg.Log}
		for _, w := range set.Witnesses {
			ec.Witnesses = append(ec.Witnesses, evidence.Witness(w))
		}
		log, err := evidence.Open(ctx, ec)
		if err != nil {
			return err
		}
		a.evidence = evidence.NewLedger(log, a.store, a.cfg.Log)
		c.Evidence = a.evidence
	}
	a.ingest, err = ingest.New(c)
	return err
}

func (a *Aggregator) openDocuments(ctx context.Context) error {
	set := a.cfg.Settings
	var err error
	if a.gate, err = access.New(access.Config{Store: a.store, InsecureCookies: set.TLS.Certificate == ""}); err != nil {
		return err
	}
	wrote, err := a.gate.Bootstrap(ctx, a.tokenDir())
	if err != nil {
		return err
	}
	if wrote != "" {
		a.cfg.Log.InfoContext(ctx, "wrote the first admin token", slog.String("file", wrote))
	}
	cluster, err := a.cluster()
	if err != nil {
		return err
	}
	enrolment := enrol.Config{Store: a.store, Kafka: a.admin, Cluster: cluster, Log: a.cfg.Log}
	if a.authority != nil {
		if a.agents, err = openAgents(ctx, a.cfg, a.store, a.authority); err != nil {
			return err
		}
		enrolment.Certifier, enrolment.Challenges = a.agents.contact, a.agents.challenges
		if enrolment.AWS, err = set.Agents.AWS(); err != nil {
			return err
		}
	}
	if a.enrol, err = enrol.New(enrolment); err != nil {
		return err
	}
	catalogue, err := finding.Shipped()
	if err != nil {
		return err
	}
	var log *evidence.Log
	if a.evidence != nil {
		log = a.evidence.Log
	}
	a.service, err = serve.New(serve.Config{Rows: a.db.Reader(), Control: a.store, Ingest: ingestView{a.ingest}, Evidence: log, Catalogue: catalogue, Now: clock.Now})
	return err
}

// tokenDir is where the first admin token goes.
func (a *Aggregator) tokenDir() string {
	switch set := a.cfg.Settings; {
	case set.Embedded.Dir != "":
		return set.Embedded.Dir
	case set.Control.SQLite != "":
		return filepath.Dir(set.Control.SQLite)
	default:
		return filepath.Dir(set.Control.PostgreSQLFile)
	}
}

// cluster is the way to the topic that agents are given.
func (a *Aggregator) cluster() (enrol.Cluster, error) {
	set := a.cfg.Settings
	if set.EmbeddedKafka() {
		c := enrol.Cluster{Brokers: []string{a.embedded.broker.Addr()}, Topic: topic.Statements}
		if set.Embedded.TLS {
			c.TLS, c.CAPEM = true, a.authority.Bundle()
		}
		return c, nil
	}
	c := enrol.Cluster{Brokers: set.Kafka.AgentBrokers, Topic: topic.Statements, TLS: set.Kafka.TLS}
	if len(c.Brokers) == 0 {
		c.Brokers = set.Kafka.Brokers
	}
	if set.Kafka.CAFile != "" {
		pem, err := os.ReadFile(set.Kafka.CAFile)
		if err != nil {
			return enrol.Cluster{}, fmt.Errorf("kafka.ca_file: %w", err)
		}
		c.CAPEM = string(pem)
	}
	return c, nil
}

// work runs ingest and the server until ctx ends or one of them fails.
func (a *Aggregator) work(ctx context.Context, started func(Address)) error {
	listener, err := a.listen(ctx)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return a.consumer.Run(ctx, func(ctx context.Context, partition int) error {
			return a.ingest.Run(ctx, partition, a.consumer.Partition(partition))
		})
	})
	group.Go(func() error { return a.enrol.Run(ctx) })
	if a.evidence != nil {
		group.Go(func() error { return a.evidence.Run(ctx) })
	}
	group.Go(func() error { return a.serve(ctx, listener) })
	if a.agents != nil {
		group.Go(func() error { return a.agents.serve(ctx) })
	}
	if a.cfg.Settings.EmbeddedKafka() {
		group.Go(func() error { return a.trim(ctx) })
	}
	if a.cfg.Settings.Embedded.Dir != "" {
		group.Go(func() error { return a.measure(ctx) })
	}
	address := a.address(listener)
	if err := a.publishAddress(ctx, address); err != nil {
		return errors.Join(err, listener.Close())
	}
	if started != nil {
		started(address)
	}
	return group.Wait()
}

func (a *Aggregator) close() error {
	if a.consumer != nil {
		a.consumer.Close()
	}
	if a.admin != nil {
		a.admin.Close()
	}
	var errs []error
	if a.agents != nil {
		errs = append(errs, a.agents.close())
	}
	if a.evidence != nil {
		errs = append(errs, a.evidence.Close())
	}
	if a.db != nil {
		errs = append(errs, a.db.Close())
	}
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	return errors.Join(errs...)
}

// secret is n random bytes in letters.
func secret(n int) (string, error) {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("make secret: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(b), nil
}

// OpenControl opens the control store of a configuration.
func OpenControl(ctx context.Context, set config.Config) (*control.Store, error) {
	c := control.Config{Path: set.Control.SQLite, Overlap: set.Keys.Overlap(), Retention: time.Duration(set.RetentionDays) * 24 * time.Hour, Now: clock.Now}
	if set.EmbeddedControl() {
		c.Path = filepath.Join(set.Embedded.Dir, "control.db")
	}
	if set.Control.PostgreSQLFile != "" {
		dsn, err := config.Secret(set.Control.PostgreSQLFile)
		if err != nil {
			return nil, fmt.Errorf("control.postgresql_file: %w", err)
		}
		c.PostgreSQL = dsn
	}
	return control.Open(ctx, c)
}

// CreateTenant makes a tenant and its first admin token, which is returned this
// once.
func CreateTenant(ctx context.Context, s *control.Store, id string) (string, error) {
	if err := predicate.ValidateID(id); err != nil {
		return "", fmt.Errorf("create tenant: %w", err)
	}
	if err := s.CreateTenant(ctx, id, id); err != nil {
		return "", fmt.Errorf("create tenant %s: %w", id, err)
	}
	gate, err := access.New(access.Config{Store: s})
	if err != nil {
		return "", err
	}
	operator := access.Principal{Tenant: id, Name: "operator", Scopes: []access.Scope{access.Admin}}
	return gate.CreateToken(ctx, operator, "admin", []access.Scope{access.Admin}, time.Time{})
}

package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTheExampleLoads(t *testing.T) {
	c, err := Load("../../../deploy/examples/aggregator.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if c.EmbeddedKafka() || c.EmbeddedClickHouse() || c.EmbeddedControl() || c.Embedded.Dir != "" {
		t.Errorf("the example runs something in the program: %+v", c)
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"a typo":                    {"embedded: {dir: /d}\nretention_day: 3\n", `did you mean "retention_days"?`},
		"nothing to run":            {"retention_days: 3\n", "or embedded.dir"},
		"open without TLS":          {"embedded: {dir: /d}\nlisten: 0.0.0.0:8480\n", "not a loopback address"},
		"half a certificate":        {"embedded: {dir: /d}\ntls: {key: k}\n", "set both certificate and key"},
		"retention past 2106":       {"embedded: {dir: /d}\nretention_days: 40000\n", "retention_days"},
		"both control stores":       {"embedded: {dir: /d}\ncontrol: {sqlite: a, postgresql_file: b}\n", "not both"},
		"no port":                   {"embedded: {dir: /d}\nlisten: localhost\n", "want host:port"},
		"a folder without room":     {"embedded: {dir: /d, max_bytes: 5}\n", "embedded.max_bytes"},
		"a port that is not a port": {"embedded: {dir: /d, kafka_port: 70000}\n", "embedded.kafka_port"},
		"half an authority":         {"embedded: {dir: /d}\nagents: {ca_key: k}\n", "set both ca_certificate and ca_key"},
		"agents with nowhere to go": {"embedded: {dir: /d}\nagents: {listen: \"0.0.0.0:8481\"}\n", "agents.address"},
		"no trust domain":           {"embedded: {dir: /d}\nagents: {trust_domain: Acme_Inc}\n", "agents.trust_domain"},
		"a certificate for ever":    {"embedded: {dir: /d}\nagents: {certificate_life: 90000h}\n", "agents.certificate_life"},
		"no time span":              {"embedded: {dir: /d}\nagents: {certificate_life: 1 day}\n", "no time span"},
		"TLS of others' brokers":    {"embedded: {dir: /d, tls: true}\nkafka: {brokers: [\"k:9093\"]}\n", "embedded.tls"},
		"a short overlap of keys":   {"embedded: {dir: /d}\nkeys: {overlap_days: 6}\n", "keys.overlap_days"},
	} {
		file := filepath.Join(t.TempDir(), "aggregator.yaml")
		if err := os.WriteFile(file, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(file); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: got %v, want it to name the file and %q", name, err, tt.want)
		}
	}
}

func TestPartsThatAreNotConfiguredAreEmbedded(t *testing.T) {
	c := Default()
	c.Embedded.Dir, c.Kafka.Brokers = "/d", []string{"kafka:9092"}
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	if c.EmbeddedKafka() || !c.EmbeddedClickHouse() || !c.EmbeddedControl() {
		t.Error("want a Kafka cluster, and the rest in the program")
	}
}

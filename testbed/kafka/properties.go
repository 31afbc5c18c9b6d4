package kafka

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
)

// properties are the broker's settings. Clients come in by SASL only. The node
// talks to itself over plain loopback listeners as User:ANONYMOUS, which is why
// that principal is a superuser here and why this is for tests alone.
func (b *Broker) properties() []byte {
	at := func(name string, port int) string { return fmt.Sprintf("%s://127.0.0.1:%d", name, port) }
	client, internal, controller := at("CLIENT", b.port), at("INTERNAL", b.internal), at("CONTROLLER", b.controller)
	settings := map[string]string{
		"process.roles":                                       "broker,controller",
		"node.id":                                             "1",
		"controller.quorum.voters":                            fmt.Sprintf("1@127.0.0.1:%d", b.controller),
		"controller.listener.names":                           "CONTROLLER",
		"listeners":                                           client + "," + internal + "," + controller,
		"advertised.listeners":                                client + "," + internal,
		"inter.broker.listener.name":                          "INTERNAL",
		"listener.security.protocol.map":                      "CLIENT:SASL_PLAINTEXT,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"listener.name.client.sasl.enabled.mechanisms":        "SCRAM-SHA-256",
		"listener.name.client.scram-sha-256.sasl.jaas.config": "org.apache.kafka.common.security.scram.ScramLoginModule required;",

		"authorizer.class.name":                            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users":                                      "User:" + b.cfg.User + ";User:ANONYMOUS",
		"allow.everyone.if.no.acl.found":                   "false",
		"log.dirs":                                         filepath.Join(b.cfg.Dir, "data"),
		"auto.create.topics.enable":                        "false",
		"default.replication.factor":                       "1",
		"log.cleaner.backoff.ms":                           "200",
		"offsets.topic.replication.factor":                 "1",
		"offsets.topic.num.partitions":                     "4",
		"transaction.state.log.replication.factor":         "1",
		"transaction.state.log.min.isr":                    "1",
		"transaction.state.log.num.partitions":             "4",
		"share.coordinator.state.topic.replication.factor": "1",
		"share.coordinator.state.topic.min.isr":            "1",
		"group.initial.rebalance.delay.ms":                 "0",
	}
	maps.Copy(settings, b.cfg.Settings)
	var out bytes.Buffer
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&out, "%s=%s\n", k, settings[k])
	}
	return out.Bytes()
}

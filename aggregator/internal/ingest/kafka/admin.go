package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// TopicSpec is a topic as it should be.
type TopicSpec struct {
	Name       string
	Partitions int
	// ReplicationFactor is used when the topic is created; -1 takes the
	// cluster's default.
	ReplicationFactor int
	// Configs are the topic's settings by Kafka's own names. Settings that are
	// not named are left alone.
	Configs map[string]string
}

// StatementTopic is the specification of a topic that carries statements in
// messages of at most maxMessageBytes. Its broker stores batches uncompressed and
// holds the size limit against that form, so that no writer can make a reader
// decompress more than the limit.
func StatementTopic(name string, partitions, maxMessageBytes int) TopicSpec {
	return TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: -1, Configs: map[string]string{
		"cleanup.policy":    "delete",
		"compression.type":  "uncompressed",
		"max.message.bytes": strconv.Itoa(maxMessageBytes),
	}}
}

// Admin prepares a cluster for agents. It needs the rights of a cluster's
// administrator: to create and alter topics, credentials and access rules.
type Admin struct {
	client *client
	grants grants
}

// NewAdmin checks the configuration and connects to nothing. Close it.
func NewAdmin(cfg Config) (*Admin, error) {
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	return &Admin{client: c, grants: grants{turn: make(chan struct{}, 1)}}, nil
}

// Close gives back the connections.
func (a *Admin) Close() { a.client.close() }

// EnsureTopics creates what is missing, adds partitions where there are fewer
// than specified, and sets the specified settings. It never takes a partition
// away.
func (a *Admin) EnsureTopics(ctx context.Context, specs []TopicSpec) error {
	if err := a.client.reach(ctx); err != nil {
		return fmt.Errorf("ensure topics: %w", err)
	}
	for _, s := range specs {
		if err := a.ensureTopic(ctx, s); err != nil {
			return fmt.Errorf("ensure topic %q: %w", s.Name, err)
		}
	}
	return nil
}

func (a *Admin) ensureTopic(ctx context.Context, s TopicSpec) error {
	if s.Name == "" || s.Partitions < 1 {
		return fmt.Errorf("%d partitions: a topic needs a name and at least one", s.Partitions)
	}
	topic := kafka.TopicConfig{Topic: s.Name, NumPartitions: s.Partitions, ReplicationFactor: s.ReplicationFactor}
	for _, name := range slices.Sorted(maps.Keys(s.Configs)) {
		topic.ConfigEntries = append(topic.ConfigEntries, kafka.ConfigEntry{ConfigName: name, ConfigValue: s.Configs[name]})
	}
	created, err := a.client.kafka.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{topic}})
	if err != nil {
		return fmt.Errorf("create: %w", err)
	}
	err = created.Errors[s.Name]
	if err == nil {
		return nil
	}
	if !errors.Is(err, kafka.TopicAlreadyExists) {
		return fmt.Errorf("create: %w", err)
	}
	return errors.Join(a.growTopic(ctx, s), a.configureTopic(ctx, s))
}

// metadataLag is how long a broker may take to learn what the controller has
// decided, and metadataTries how often it is asked meanwhile.
const (
	metadataLag   = 5 * time.Second
	metadataTries = 25
)

// growTopic adds partitions. A broker that answers from old metadata makes it
// ask for what is there already, which the controller refuses: then it waits
// for the broker.
func (a *Admin) growTopic(ctx context.Context, s TopicSpec) error {
	tick := time.NewTicker(metadataLag / metadataTries)
	defer tick.Stop()
	for try := 1; ; try++ {
		have, err := a.client.partitions(ctx, s.Name)
		if err != nil || have >= s.Partitions {
			return err
		}
		res, err := a.client.kafka.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{
			Topics: []kafka.TopicPartitionsConfig{{Name: s.Name, Count: int32(s.Partitions)}},
		})
		if err == nil {
			err = res.Errors[s.Name]
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, kafka.InvalidPartitionNumber) || try == metadataTries {
			return fmt.Errorf("add partitions: %w", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (a *Admin) configureTopic(ctx context.Context, s TopicSpec) error {
	if len(s.Configs) == 0 {
		return nil
	}
	resource := kafka.IncrementalAlterConfigsRequestResource{ResourceType: kafka.ResourceTypeTopic, ResourceName: s.Name}
	for _, name := range slices.Sorted(maps.Keys(s.Configs)) {
		resource.Configs = append(resource.Configs, kafka.IncrementalAlterConfigsRequestConfig{
			Name: name, Value: s.Configs[name], ConfigOperation: kafka.ConfigOperationSet,
		})
	}
	res, err := a.client.kafka.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{resource},
	})
	if err != nil {
		return fmt.Errorf("configure: %w", err)
	}
	for _, r := range res.Resources {
		if r.Error != nil {
			return fmt.Errorf("configure: %w", r.Error)
		}
	}
	return nil
}

// The credentials' strength. 4,096 iterations are the least that is allowed (RFC
// 7677, section 4) and what the embedded broker announces whatever was stored;
// they protect generated passwords, which have no dictionary.
const (
	scramIterations = 4096
	scramSalt       = 32
)

var (
	usernames = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	passwords = regexp.MustCompile(`^[!-~]{16,256}$`)
)

// RevokeAgent takes an agent's rights and then its login away. Connections that
// are still open can do nothing any more. Revoking an agent that does not exist
// is not an error.
func (a *Admin) RevokeAgent(ctx context.Context, username string) error {
	if !usernames.MatchString(username) {
		return fmt.Errorf("revoke agent %q: not the name of an agent", username)
	}
	if err := a.client.reach(ctx); err != nil {
		return fmt.Errorf("revoke agent %q: %w", username, err)
	}
	if err := a.deleteRules(ctx, principalRules("User:"+username)); err != nil {
		return fmt.Errorf("revoke agent %q: %w", username, err)
	}
	err := a.alterScram(ctx, &kafka.AlterUserScramCredentialsRequest{
		Deletions: []kafka.UserScramCredentialsDeletion{{Name: username, Mechanism: kafka.ScramMechanismSha256}},
	})
	if err != nil && !errors.Is(err, kafka.ResourceNotFound) {
		return fmt.Errorf("revoke agent %q: %w", username, err)
	}
	return nil
}

func (a *Admin) alterScram(ctx context.Context, req *kafka.AlterUserScramCredentialsRequest) error {
	res, err := a.client.kafka.AlterUserScramCredentials(ctx, req)
	if err != nil {
		return fmt.Errorf("alter credentials: %w", err)
	}
	for _, r := range res.Results {
		if r.Error != nil {
			return fmt.Errorf("alter credentials: %w", r.Error)
		}
	}
	return nil
}

// rules lists a principal's access rules in a fixed order.
func (a *Admin) rules(ctx context.Context, principal string) ([]kafka.ACLEntry, error) {
	f := principalRules(principal)
	res, err := a.client.kafka.DescribeACLs(ctx, &kafka.DescribeACLsRequest{Filter: kafka.ACLFilter{
		ResourceTypeFilter: f.ResourceTypeFilter, ResourcePatternTypeFilter: f.ResourcePatternTypeFilter,
		PrincipalFilter: f.PrincipalFilter, Operation: f.Operation, PermissionType: f.PermissionType,
	}})
	if err == nil {
		err = res.Error
	}
	if err != nil {
		return nil, fmt.Errorf("list access rules: %w", err)
	}
	var out []kafka.ACLEntry
	for _, r := range res.Resources {
		for _, acl := range r.ACLs {
			out = append(out, kafka.ACLEntry{
				ResourceType: r.ResourceType, ResourceName: r.ResourceName, ResourcePatternType: r.PatternType,
				Principal: acl.Principal, Host: acl.Host, Operation: acl.Operation, PermissionType: acl.PermissionType,
			})
		}
	}
	slices.SortFunc(out, func(a, b kafka.ACLEntry) int {
		return cmp.Or(cmp.Compare(a.ResourceType, b.ResourceType), cmp.Compare(a.ResourceName, b.ResourceName),
			cmp.Compare(a.ResourcePatternType, b.ResourcePatternType), cmp.Compare(a.Host, b.Host),
			cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.PermissionType, b.PermissionType))
	})
	return out, nil
}

func (a *Admin) deleteRules(ctx context.Context, f kafka.DeleteACLsFilter) error {
	res, err := a.client.kafka.DeleteACLs(ctx, &kafka.DeleteACLsRequest{Filters: []kafka.DeleteACLsFilter{f}})
	if err != nil {
		return fmt.Errorf("delete access rules: %w", err)
	}
	for _, r := range res.Results {
		if r.Error != nil {
			return fmt.Errorf("delete access rules: %w", r.Error)
		}
		for _, m := range r.MatchingACLs {
			if m.Error != nil {
				return fmt.Errorf("delete access rule: %w", m.Error)
			}
		}
	}
	return nil
}

func principalRules(principal string) kafka.DeleteACLsFilter {
	return kafka.DeleteACLsFilter{
		ResourceTypeFilter: kafka.ResourceTypeAny, ResourcePatternTypeFilter: kafka.PatternTypeAny,
		PrincipalFilter: principal, Operation: kafka.ACLOperationTypeAny, PermissionType: kafka.ACLPermissionTypeAny,
	}
}

func exactly(r kafka.ACLEntry) kafka.DeleteACLsFilter {
	return kafka.DeleteACLsFilter{
		ResourceTypeFilter: r.ResourceType, ResourceNameFilter: r.ResourceName,
		ResourcePatternTypeFilter: r.ResourcePatternType, PrincipalFilter: r.Principal, HostFilter: r.Host,
		Operation: r.Operation, PermissionType: r.PermissionType,
	}
}

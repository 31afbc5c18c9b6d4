package control

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/cavra/cavra/schemas/predicate"
)

// AWSRule lets whoever has a name at AWS enrol agents of a tenant.
type AWSRule struct {
	Tenant, Name string
	// ARN is a name, or that of all sessions of a role; which are well formed is
	// not the store's business.
	ARN string
	// AgentName is what a new agent is called, with {account}, {role} and {name}.
	AgentName string
	CreatedBy string
	CreatedAt time.Time
}

// MaxAWSRules bounds the rules of a tenant.
const MaxAWSRules = 100

// CreateAWSRule stores a rule; the store sets CreatedAt. A rule of the same name
// is ErrExists.
func (s *Store) CreateAWSRule(ctx context.Context, r AWSRule) error {
	err := predicate.ValidateID(r.Name)
	for _, label := range []string{r.CreatedBy, r.AgentName} {
		if err == nil {
			err = validateLabel(label)
		}
	}
	if err == nil {
		err = s.write(ctx, func(tx *sql.Tx) error {
			have, err := queryOne(ctx, tx, func(scan scanner, n *int) error { return scan(n) }, `SELECT COUNT(*) FROM aws_join_rules WHERE tenant = $1`, r.Tenant)
			if err == nil && have >= MaxAWSRules {
				err = fmt.Errorf("there are %d already", have)
			}
			if err != nil {
				return err
			}
			n, err := changed(ctx, tx, `INSERT INTO aws_join_rules (tenant, name, arn, agent_name, created_by, created_at) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT DO NOTHING`, r.Tenant, r.Name, r.ARN, r.AgentName, r.CreatedBy, s.millis())
			if err == nil && n == 0 {
				err = ErrExists
			}
			return err
		})
	}
	if err != nil {
		return fmt.Errorf("create AWS rule %q: %w", r.Name, err)
	}
	return nil
}

const awsRuleQuery = `SELECT tenant, name, arn, agent_name, created_by, created_at FROM aws_join_rules WHERE tenant = $1`

func readAWSRule(scan scanner, r *AWSRule) error {
	var created int64
	err := scan(&r.Tenant, &r.Name, &r.ARN, &r.AgentName, &r.CreatedBy, &created)
	r.CreatedAt = moment(created)
	return err
}

// AWSRules lists a tenant's rules by name.
func (s *Store) AWSRules(ctx context.Context, tenant string) ([]AWSRule, error) {
	out, err := queryAll(ctx, s.read, readAWSRule, awsRuleQuery+` ORDER BY name`, tenant)
	if err != nil {
		return nil, fmt.Errorf("list AWS rules: %w", err)
	}
	return out, nil
}

// AWSRule returns a tenant's rule, or ErrNotFound.
func (s *Store) AWSRule(ctx context.Context, tenant, name string) (AWSRule, error) {
	r, err := queryOne(ctx, s.read, readAWSRule, awsRuleQuery+` AND name = $2`, tenant, name)
	if err != nil {
		return AWSRule{}, fmt.Errorf("read AWS rule %q: %w", name, err)
	}
	return r, nil
}

// DeleteAWSRule ends a rule, or returns ErrNotFound. Agents that it let in stay.
func (s *Store) DeleteAWSRule(ctx context.Context, tenant, name string) error {
	err := s.write(ctx, func(tx *sql.Tx) error {
		n, err := changed(ctx, tx, `DELETE FROM aws_join_rules WHERE tenant = $1 AND name = $2`, tenant, name)
		if err == nil && n == 0 {
			err = ErrNotFound
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("delete AWS rule %q: %w", name, err)
	}
	return nil
}

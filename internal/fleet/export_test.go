package fleet

import "context"

// BoolInt is 1 for true.
var BoolInt = oneIf

// SetVersion says that the tables of a store are of another version.
func SetVersion(ctx context.Context, where string, version int) error {
	s, err := Create(ctx, where)
	if err != nil {
		return err
	}
	defer s.Close()
	_, err = s.db.ExecContext(ctx, "INSERT INTO unthunk_schema (version) VALUES ($1)", version)
	return err
}

// Package recordtest makes records of each kind for tests.
package recordtest

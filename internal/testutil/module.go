package testutil

import (
	"reflect"
	"strings"
)

// Package is the import path of the package in folder dir of this module. It
// follows the module when that is renamed.
func Package(dir string) string {
	here := reflect.TypeFor[module]().PkgPath()
	return strings.TrimSuffix(here, "internal/testutil") + dir
}

type module struct{}

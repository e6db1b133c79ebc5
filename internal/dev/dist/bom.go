package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

// writeBOM writes what is in a binary: the modules that Go recorded in it, and Go's own
// library, in the form of CycloneDX. It is what the binary says, not what go.mod does.
func writeBOM(b build, at time.Time, name string) error {
	sum, err := sha256Of(b.file)
	if err != nil {
		return fmt.Errorf("list what is in the binary of %s: %w", b.arch, err)
	}
	bom := cyclonedx.NewBOM()
	main := goModule(&b.info.Main)
	main.Type = cyclonedx.ComponentTypeApplication
	main.Hashes = &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: fmt.Sprintf("%x", sum)}}
	main.Licenses = &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}}
	bom.Metadata = &cyclonedx.Metadata{Timestamp: at.Format(time.RFC3339), Component: &main}
	library := goModule(&debug.Module{Path: "std", Version: strings.TrimPrefix(b.info.GoVersion, "go")})
	library.PackageURL = "pkg:golang/std@" + library.Version
	components := []cyclonedx.Component{library}
	for _, m := range b.info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		components = append(components, goModule(m))
	}
	var refs []string
	for _, c := range components {
		refs = append(refs, c.BOMRef)
	}
	bom.Components = &components
	bom.Dependencies = &[]cyclonedx.Dependency{{Ref: main.BOMRef, Dependencies: &refs}}
	return writeFile(name, func(f *os.File) error {
		return cyclonedx.NewBOMEncoder(f, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
	})
}

// goModule is a module as a component.
func goModule(m *debug.Module) cyclonedx.Component {
	purl := fmt.Sprintf("pkg:golang/%s@%s", m.Path, m.Version)
	c := cyclonedx.Component{
		BOMRef: purl, Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: purl,
	}
	if m.Sum != "" { // Go's own hash, of a module's files
		c.Properties = &[]cyclonedx.Property{{Name: "go:sum", Value: m.Sum}}
	}
	return c
}

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// render is what kubectl kustomize prints for a folder.
func render(dir string) (resmap.ResMap, error) {
	m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	if err != nil {
		return nil, fmt.Errorf("render %s: %w", filepath.Base(dir), err)
	}
	return m, nil
}

// writeManifests writes the DaemonSet and what belongs to it as one file for kubectl apply,
// with the image of this version.
func writeManifests(src source, v version, out string) error {
	m, err := render(filepath.Join(src.dir, "packaging", "kubernetes", "base"))
	if err != nil {
		return err
	}
	text, err := m.AsYaml()
	if err != nil {
		return fmt.Errorf("write manifests: %w", err)
	}
	const unnamed = imageName + ":latest"
	if n := strings.Count(string(text), unnamed); n != 1 {
		return fmt.Errorf("write manifests: %s is named %d times, not once", unnamed, n)
	}
	named := strings.Replace(string(text), unnamed, imageName+":"+v.String(), 1)
	return writeFile(filepath.Join(out, fmt.Sprintf("unthunk-%s-kubernetes.yaml", v)), func(f *os.File) error {
		_, err := f.WriteString(named)
		return err
	})
}

package cluster

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// pauseImage is the image of the process that holds a pod's namespaces.
const pauseImage = "localhost/unthunk-cluster/pause:1"

// writePause builds that image and writes it as docker save does.
func writePause(file string) error {
	program := filepath.Join(filepath.Dir(file), "pause")
	if err := goBuild("pause", program); err != nil {
		return err
	}
	binary, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("read pause: %w", err)
	}
	layer, err := packed(member{"pause", 0o755, binary})
	if err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/pause"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": "config.json", "RepoTags": []string{pauseImage}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	image, err := packed(member{"manifest.json", 0o644, manifest}, member{"config.json", 0o644, config}, member{"layer.tar", 0o644, layer})
	if err != nil {
		return err
	}
	if err := os.WriteFile(file, image, 0o644); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	return nil
}

// member is a file of a tar.
type member struct {
	name string
	mode int64
	data []byte
}

// packed is a tar of files.
func packed(members ...member) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range members {
		if err := w.WriteHeader(&tar.Header{Name: m.name, Mode: m.mode, Size: int64(len(m.data))}); err != nil {
			return nil, fmt.Errorf("pack %s: %w", m.name, err)
		}
		if _, err := w.Write(m.data); err != nil {
			return nil, fmt.Errorf("pack %s: %w", m.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("pack: %w", err)
	}
	return b.Bytes(), nil
}

{{/* Combinations that the schema cannot judge. All faults are told at once, each by the name of its value. */}}
{{- define "starlift.checks" -}}
{{- $v := .Values -}}
{{- $tls := ne $v.tls.secretName "" -}}
{{- $tokens := ne $v.tokens.secretName "" -}}
{{- $state := $v.coordinator.state -}}
{{- $etcd := $state.etcd -}}
{{- $hpa := $v.worker.hpa -}}
{{- $keda := $v.worker.keda -}}
{{- $policy := $v.networkPolicy -}}
{{- $faults := list -}}

{{- if not $v.insecure -}}
  {{- if not $tls -}}
    {{- $faults = append $faults "tls.secretName is empty: name a Secret with ca.crt, tls.crt and tls.key, or set insecure: true in a network that you trust" -}}
  {{- end -}}
  {{- if not $tokens -}}
    {{- $faults = append $faults "tokens.secretName is empty: name a Secret with the keys coordinator and worker, or set insecure: true in a network that you trust" -}}
  {{- end -}}
{{- else if and $tls $tokens -}}
  {{- $faults = append $faults "insecure is true although tls.secretName and tokens.secretName are set: remove it" -}}
{{- end -}}
{{- if not $tls -}}
  {{- range $key := list "workerSecretName" "serverName" "mutual" -}}
    {{- if get $v.tls $key -}}
      {{- $faults = append $faults (printf "tls.%s needs tls.secretName" $key) -}}
    {{- end -}}
  {{- end -}}
{{- else if $v.coordinator.grpcReadiness -}}
  {{- $faults = append $faults "coordinator.grpcReadiness does not work with tls.secretName: the kubelet's gRPC probes speak no TLS" -}}
{{- end -}}
{{- if not $v.datasources.secretName -}}
  {{- $faults = append $faults (printf "datasources.secretName is empty: name the Secret that holds %s" $v.datasources.key) -}}
{{- end -}}

{{- if eq $state.kind "file" -}}
  {{- if gt (int $v.coordinator.replicas) 1 -}}
    {{- $faults = append $faults (printf "coordinator.replicas is %d, which needs coordinator.state.kind: etcd" (int $v.coordinator.replicas)) -}}
  {{- end -}}
  {{- if $etcd.endpoints -}}
    {{- $faults = append $faults "coordinator.state.etcd.endpoints is set, but coordinator.state.kind is file" -}}
  {{- end -}}
{{- else -}}
  {{- if not $etcd.endpoints -}}
    {{- $faults = append $faults "coordinator.state.etcd.endpoints is empty: list HOST:PORT of each member" -}}
  {{- end -}}
  {{- if ne (empty $etcd.user) (empty $etcd.passwordSecret.name) -}}
    {{- $faults = append $faults "coordinator.state.etcd.user and coordinator.state.etcd.passwordSecret.name need each other" -}}
  {{- end -}}
  {{- if and $etcd.clientCertificate (not $etcd.tlsSecretName) -}}
    {{- $faults = append $faults "coordinator.state.etcd.clientCertificate needs coordinator.state.etcd.tlsSecretName" -}}
  {{- end -}}
  {{- if and $etcd.user (not $etcd.tlsSecretName) (not $v.insecure) -}}
    {{- $faults = append $faults "coordinator.state.etcd.tlsSecretName is empty, so the password of coordinator.state.etcd.user would travel in clear text" -}}
  {{- end -}}
{{- end -}}

{{- if and $hpa.enabled $keda.enabled -}}
  {{- $faults = append $faults "worker.hpa.enabled and worker.keda.enabled are both true: KEDA makes an HPA of its own, choose one" -}}
{{- end -}}
{{- if $hpa.enabled -}}
  {{- if not (or $hpa.queueDepthPerWorker $hpa.cpuUtilization) -}}
    {{- $faults = append $faults "worker.hpa needs queueDepthPerWorker or cpuUtilization" -}}
  {{- end -}}
  {{- if gt (int $hpa.minReplicas) (int $hpa.maxReplicas) -}}
    {{- $faults = append $faults "worker.hpa.minReplicas is more than worker.hpa.maxReplicas" -}}
  {{- end -}}
{{- end -}}
{{- if $keda.enabled -}}
  {{- if gt (int $keda.minReplicas) (int $keda.maxReplicas) -}}
    {{- $faults = append $faults "worker.keda.minReplicas is more than worker.keda.maxReplicas" -}}
  {{- end -}}
  {{- if and $policy.enabled (not $policy.scalerFrom) -}}
    {{- $faults = append $faults "networkPolicy.scalerFrom is empty, so KEDA could not reach the coordinators" -}}
  {{- end -}}
{{- end -}}

{{- if and $v.metrics.monitors.enabled (not $v.metrics.enabled) -}}
  {{- $faults = append $faults "metrics.monitors.enabled needs metrics.enabled" -}}
{{- end -}}
{{- if and $v.metrics.enabled $policy.enabled (not $policy.metricsFrom) -}}
  {{- $faults = append $faults "networkPolicy.metricsFrom is empty, so nobody could read the port of metrics.enabled" -}}
{{- end -}}
{{- if and $policy.egress.enabled (not $policy.egress.rules) -}}
  {{- $faults = append $faults "networkPolicy.egress.rules is empty, so no database, no StarRocks and no etcd could be reached" -}}
{{- end -}}
{{- if and $v.test.enabled $tokens (not $v.test.tokenKey) -}}
  {{- $faults = append $faults "test.tokenKey is empty: the test needs a token of tokens.secretName" -}}
{{- end -}}

{{- if $faults -}}
{{- fail (printf "\n\nStarlift cannot be installed like this:\n  - %s\n" (join "\n  - " $faults)) -}}
{{- end -}}
{{- end -}}

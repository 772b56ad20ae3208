{{/* What the pods of both roles share. All take (dict "root" $ "role" ROLE). */}}

{{- define "starlift.podSecurityContext" -}}
runAsNonRoot: true
{{- with .root.Values.runAsUser }}
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "starlift.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/* Where pods may run. */}}
{{- define "starlift.scheduling" -}}
{{- $values := get .root.Values .role -}}
topologySpreadConstraints:
  - topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: {{ $values.spreadOverHosts }}
    {{- include "starlift.spread" . | nindent 4 }}
  - topologyKey: topology.kubernetes.io/zone
    whenUnsatisfiable: ScheduleAnyway
    {{- include "starlift.spread" . | nindent 4 }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{ toJson . }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{ toJson . }}
{{- end }}
{{- with $values.affinity }}
affinity: {{ toJson . }}
{{- end }}
{{- end -}}

{{/* Only pods of the same rollout are counted. */}}
{{- define "starlift.spread" -}}
maxSkew: 1
labelSelector:
  matchLabels:
    {{- include "starlift.selectorLabels" . | nindent 4 }}
matchLabelKeys: [pod-template-hash]
{{- end -}}

{{/* Settings that both roles know, none of them secret. */}}
{{- define "starlift.commonSettings" -}}
{{- $v := .Values -}}
STARLIFT_LOG: {{ $v.log.filter | quote }}
STARLIFT_LOG_FORMAT: {{ $v.log.format }}
STARLIFT_DATASOURCES: /etc/starlift/datasources/{{ $v.datasources.key }}
{{- if $v.metrics.enabled }}
STARLIFT_METRICS: {{ printf "%s:9473" (include "starlift.anyHost" .) | quote }}
{{- end }}
{{- if $v.insecure }}
STARLIFT_INSECURE: "true"
{{- end }}
{{- if $v.tls.secretName }}
STARLIFT_TLS_CERT: /etc/starlift/tls/tls.crt
STARLIFT_TLS_KEY: /etc/starlift/tls/tls.key
STARLIFT_TLS_CA: /etc/starlift/tls/ca.crt
STARLIFT_TLS_SERVER_NAME: {{ include "starlift.tlsServerName" . }}
{{- end }}
{{- if $v.tokens.secretName }}
STARLIFT_TOKEN_FILE: /etc/starlift/tokens/tokens
{{- end }}
{{- end -}}

{{/* Whole directories are mounted: single files (subPath) would never see a Secret's update. */}}
{{- define "starlift.secretMounts" -}}
{{- $v := .root.Values -}}
- name: datasources
  mountPath: /etc/starlift/datasources
  readOnly: true
{{- if $v.tls.secretName }}
- name: tls
  mountPath: /etc/starlift/tls
  readOnly: true
{{- end }}
{{- if $v.tokens.secretName }}
- name: tokens
  mountPath: /etc/starlift/tokens
  readOnly: true
{{- end }}
{{- range $index, $name := $v.datasources.fileSecrets }}
- name: file-{{ $index }}
  mountPath: /etc/starlift/files/{{ $name }}
  readOnly: true
{{- end }}
- name: tmp
  mountPath: /tmp
{{- end -}}

{{/* Group-readable, so that fsGroup is enough to read them. */}}
{{- define "starlift.secretVolumes" -}}
{{- $v := .root.Values -}}
- name: datasources
  secret:
    secretName: {{ $v.datasources.secretName }}
    defaultMode: 0440
    items: [{ key: {{ $v.datasources.key }}, path: {{ $v.datasources.key }} }]
{{- if $v.tls.secretName }}
- name: tls
  secret:
    secretName: {{ eq .role "coordinator" | ternary $v.tls.secretName (include "starlift.workerTlsSecret" .root) }}
    defaultMode: 0440
{{- end }}
{{- if $v.tokens.secretName }}
- name: tokens
  secret:
    secretName: {{ $v.tokens.secretName }}
    defaultMode: 0440
    items: [{ key: {{ .role }}, path: tokens }]
{{- end }}
{{- range $index, $name := $v.datasources.fileSecrets }}
- name: file-{{ $index }}
  secret: { secretName: {{ $name }}, defaultMode: 0440 }
{{- end }}
- name: tmp
  emptyDir: { sizeLimit: 64Mi }
{{- end -}}

{{/* Liveness never asks a database, etcd or another pod: restarting would mend none of them. */}}
{{- define "starlift.probes" -}}
{{- $scheme := include "starlift.scheme" .root | upper -}}
startupProbe:
  httpGet: { path: /livez, port: http, scheme: {{ $scheme }} }
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: { path: /livez, port: http, scheme: {{ $scheme }} }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  {{- if and (eq .role "coordinator") .root.Values.coordinator.grpcReadiness }}
  grpc: { port: 9470 }
  {{- else }}
  httpGet: { path: /readyz, port: http, scheme: {{ $scheme }} }
  {{- end }}
  periodSeconds: 5
  timeoutSeconds: 3
{{- end -}}

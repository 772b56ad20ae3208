{{/* Names, labels, addresses. A role is "coordinator" or "worker"; helpers that need one take (dict "root" $ "role" ROLE). */}}

{{/* Leaves room for "-coordinator" in 63 letters. */}}
{{- define "starlift.fullname" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) -}}{{- $name = printf "%s-%s" $name .Chart.Name -}}{{- end -}}
{{- .Values.fullnameOverride | default $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "starlift.name" -}}
{{- printf "%s-%s" (include "starlift.fullname" .root) .role -}}
{{- end -}}

{{/* What selectors may use: never changes in the life of a release. */}}
{{- define "starlift.releaseLabels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "starlift.selectorLabels" -}}
{{ include "starlift.releaseLabels" .root }}
app.kubernetes.io/component: {{ .role }}
{{- end -}}

{{- define "starlift.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{ include "starlift.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end -}}

{{- define "starlift.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}
{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "starlift.scheme" -}}
{{- ternary "https" "http" (ne .Values.tls.secretName "") -}}
{{- end -}}

{{/* The host of a listening address. */}}
{{- define "starlift.anyHost" -}}
{{- ternary "[::]" "0.0.0.0" (eq .Values.ipFamily "IPv6") -}}
{{- end -}}

{{/* The host of a URL that leads to this pod; the kubelet puts the address in. */}}
{{- define "starlift.podHost" -}}
{{- ternary "[$(POD_IP)]" "$(POD_IP)" (eq .Values.ipFamily "IPv6") -}}
{{- end -}}

{{- define "starlift.coordinatorHost" -}}
{{- printf "%s.%s.svc" (include "starlift.name" (dict "root" . "role" "coordinator")) .Release.Namespace -}}
{{- end -}}

{{- define "starlift.coordinatorUrl" -}}
{{- printf "%s://%s:9470" (include "starlift.scheme" .) (include "starlift.coordinatorHost" .) -}}
{{- end -}}

{{- define "starlift.tlsServerName" -}}
{{- .Values.tls.serverName | default (include "starlift.coordinatorHost" .) -}}
{{- end -}}

{{- define "starlift.workerTlsSecret" -}}
{{- .Values.tls.workerSecretName | default .Values.tls.secretName -}}
{{- end -}}

{{/* Seconds of a duration such as 90s, 10m, 2h. */}}
{{- define "starlift.seconds" -}}
{{- $unit := dict "s" 1 "m" 60 "h" 3600 -}}
{{- mul (regexFind "^[0-9]+" .) (get $unit (regexFind "[smh]$" .)) -}}
{{- end -}}

{{- define "starlift.autoscaled" -}}
{{- if or .Values.worker.hpa.enabled .Values.worker.keda.enabled -}}true{{- end -}}
{{- end -}}

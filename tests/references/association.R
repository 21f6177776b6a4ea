# Reference estimates for tests/test_association_references.py, from R. Run in this folder after make_eyes.py:
#   Rscript association.R
# Debian packages: r-cran-geepack r-cran-lme4 r-cran-survival r-cran-ordinal r-cran-brglm2 r-cran-mice r-cran-metafor r-cran-sandwich
suppressMessages({library(geepack); library(lme4); library(survival); library(ordinal); library(brglm2); library(mice); library(metafor); library(sandwich)})
eyes <- read.csv("eyes.csv")
out <- data.frame()
add <- function(model, term, estimate, se = NA) out <<- rbind(out, data.frame(model = model, term = term, estimate = estimate, se = se))

for (family in c("binomial", "gaussian", "poisson")) for (corstr in c("exchangeable", "independence")) {
  response <- c(binomial = "y", gaussian = "iop", poisson = "count")[family]
  formula <- as.formula(paste(response, "~ x + age + sex"))
  fit <- geeglm(formula, id = subject, data = eyes, family = family, corstr = corstr, control = geese.control(epsilon = 1e-12, maxit = 500))
  s <- coef(summary(fit))
  for (t in c("x", "age", "sex")) add(paste("geepack", family, corstr), t, s[t, "Estimate"], s[t, "Std.err"])
  if (corstr == "exchangeable") add(paste("geepack", family, corstr), "alpha", fit$geese$alpha)
}

logit <- glm(y ~ x + age + sex, data = eyes, family = binomial, control = glm.control(epsilon = 1e-14, maxit = 100))
robust <- sqrt(diag(vcovCL(logit, cluster = eyes$subject, type = "HC0", cadjust = FALSE)))
for (t in c("x", "age", "sex")) add("sandwich binomial", t, coef(logit)[t], robust[t])

firth <- glm(rare ~ marker + age, data = eyes, family = binomial, method = "brglmFit", type = "AS_mean", start = c(-2, 0, 0),
             epsilon = 1e-10, maxit = 10000, slowit = 0.5)
s <- coef(summary(firth))
for (t in c("(Intercept)", "marker", "age")) add("brglm2", t, s[t, "Estimate"], s[t, "Std. Error"])

ordered <- clm(factor(grade) ~ x + age + sex, data = eyes, control = clm.control(gradTol = 1e-12, maxIter = 200))
s <- coef(summary(ordered))
for (t in rownames(s)) add("ordinal", t, s[t, "Estimate"], s[t, "Std. Error"])
robust <- sqrt(diag(vcovCL(ordered, cluster = eyes$subject, type = "HC0", cadjust = FALSE)))
for (t in c("x", "age", "sex")) add("ordinal clustered", t, coef(ordered)[t], robust[t])

cox <- coxph(Surv(time, event) ~ x + age + sex, data = eyes, cluster = subject, ties = "efron", control = coxph.control(eps = 1e-13, iter.max = 100))
s <- coef(summary(cox))
for (t in c("x", "age", "sex")) add("survival", t, s[t, "coef"], s[t, "robust se"])

mixed <- glmer(y ~ x + age + sex + (1 | subject), data = eyes, family = binomial, nAGQ = 15,
               control = glmerControl(optimizer = "bobyqa", tolPwrss = 1e-13, optCtrl = list(rhoend = 1e-10, maxfun = 1e6)))
s <- coef(summary(mixed))
for (t in c("x", "age", "sex")) add("lme4 glmer", t, s[t, "Estimate"], s[t, "Std. Error"])
add("lme4 glmer", "sd", as.data.frame(VarCorr(mixed))$sdcor[1])

linear <- lmer(iop ~ x + age + sex + (1 | subject), data = eyes, REML = TRUE,
               control = lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-12, maxfun = 1e6)))
s <- coef(summary(linear))
for (t in c("x", "age", "sex")) add("lme4 lmer", t, s[t, "Estimate"], s[t, "Std. Error"])
add("lme4 lmer", "residual", sigma(linear)^2)

q <- c(0.42, 0.51, 0.38, 0.47, 0.44); u <- c(0.012, 0.014, 0.011, 0.013, 0.012)
pooled <- pool.scalar(q, u, n = 200, k = 4)
add("mice", "pooled", pooled$qbar, sqrt(pooled$t)); add("mice", "df", pooled$df); add("mice", "fmi", pooled$fmi)

b <- c(0.30, 0.55, 0.12, 0.41); v <- c(0.02, 0.03, 0.015, 0.04)
for (m in c("FE", "DL")) { r <- rma(b, v, method = m); add(paste("metafor", m), "estimate", as.numeric(r$beta), r$se) }
add("metafor DL", "tau2", r$tau2); add("metafor DL", "i2", r$I2 / 100); add("metafor DL", "q", r$QE); add("metafor DL", "p", r$QEp)

p <- c(0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.9)
for (m in c("bonferroni", "holm", "BH", "BY")) for (i in seq_along(p)) add(paste("p.adjust", m), as.character(i), p.adjust(p, m)[i])

write.csv(format(out, digits = 15), "association_r.csv", row.names = FALSE, quote = FALSE)
versions <- sapply(c("geepack", "lme4", "survival", "ordinal", "brglm2", "mice", "metafor", "sandwich"), function(x) as.character(packageVersion(x)))
writeLines(c(R.version.string, paste(names(versions), versions)), "association_r_versions.txt")

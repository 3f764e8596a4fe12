"""The columns of Census-Income (KDD), in the order of the files."""

COLUMNS = tuple(
  """
  age class_worker det_ind_code det_occ_code education wage_per_hour hs_college
  marital_stat major_ind_code major_occ_code race hisp_origin sex union_member
  unemp_reason full_or_part_emp capital_gains capital_losses stock_dividends
  tax_filer_stat region_prev_res state_prev_res det_hh_fam_stat det_hh_summ
  instance_weight mig_chg_msa mig_chg_reg mig_move_reg mig_same
  mig_prev_sunbelt num_emp fam_under_18 country_father country_mother
  country_self citizenship own_or_self vet_question vet_benefits weeks_worked
  year income_50k
  """.split()
)
NUMERIC = (
  'age', 'wage_per_hour', 'capital_gains', 'capital_losses', 'stock_dividends',
  'num_emp', 'weeks_worked',
)  # fmt: skip
IGNORED = 'instance_weight'  # as the UCI notes ask
EDUCATION_BELOW = (
  'Children', 'Less than 1st grade', '1st 2nd 3rd or 4th grade',
  '5th or 6th grade', '7th and 8th grade', '9th grade', '10th grade',
  '11th grade', '12th grade no diploma', 'High school graduate',
  'Some college but no degree',
)  # fmt: skip
EDUCATION_DEGREE = (
  'Associates degree-occup /vocational', 'Associates degree-academic program',
  'Bachelors degree(BA AB BS)', 'Masters degree(MA MS MEng MEd MSW MBA)',
  'Prof school degree (MD DDS DVM LLB JD)', 'Doctorate degree(PhD EdD)',
)  # fmt: skip
NEVER_MARRIED = 'Never married'
MARRIED = (
  'Married-civilian spouse present', 'Divorced', 'Widowed', 'Separated',
  'Married-spouse absent', 'Married-A F spouse present',
)  # fmt: skip
INCOME_BELOW, INCOME_ABOVE = '- 50000.', '50000+.'
# The columns from which labels are made may hold these values and no others.
LABEL_VALUES = {
  'education': (*EDUCATION_BELOW, *EDUCATION_DEGREE),
  'marital_stat': (NEVER_MARRIED, *MARRIED),
  'income_50k': (INCOME_BELOW, INCOME_ABOVE),
}
